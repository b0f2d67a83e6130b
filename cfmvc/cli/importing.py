"""Imports of what a command works with, which are most of its start."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from what a block imports, now and at the end.

    Torch and AnnData are a quarter of a million objects, none of them garbage before the process
    ends. To look through them again and again while they grow, and once more at the exit, costs
    a short command a third of its time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
