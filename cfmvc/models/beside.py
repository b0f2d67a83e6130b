"""Work of a GPU beside other work: kernels of a small model leave most of it idle."""

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch

Made = TypeVar("Made")


def beside(work: Callable[[], Made], like: torch.Tensor) -> Callable[[], Made]:
    """Begin with some work; what is returned waits for it and returns what it has made.

    On a GPU the work has a stream of its own, in which autograd then does its share of the backward
    pass as well; on a CPU it is done at once. Nothing of it may be used before it was waited for,
    and a backward pass has to keep its graph until the end (``retain_graph``): what the allocator
    gets back meanwhile may still be read in the other stream.

    Parameters
    ----------
    work
        What to do.
    like
        A tensor of the device.
    """
    if not like.is_cuda:
        made = work()
        return lambda: made
    here, there = torch.cuda.current_stream(like.device), _second_stream(like.device)
    there.wait_stream(here)
    with torch.cuda.stream(there):
        made = work()

    def finished() -> Made:
        here.wait_stream(there)
        return made

    return finished


@cache
def _second_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
