"""A whole optimiser step as one piece of work for the device, recorded once and repeated.

A step of a small model is some hundred kernels that take microseconds each, and to start them one
by one from Python takes far longer than that. Recorded as a CUDA graph they are started together.
What a recorded step reads has to lie where it lay: the numbers that change from step to step are
copied into tensors that stay.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import torch

from cfmvc.errors import CfmvcError

Output = TypeVar("Output")
Work = Callable[[torch.Tensor], Output]


class Rates:
    """Learning rate of a step, and the weights' share of their average.

    Parameters
    ----------
    device
        Where they are needed. On a GPU they are tensors that stay, of the numbers given last.
    """

    def __init__(self, device: torch.device) -> None:
        self.lr: float | torch.Tensor = 0.0
        self.share: float | torch.Tensor = 0.0
        self._held = torch.zeros(2, device=device) if device.type == "cuda" else None
        if self._held is not None:
            self.lr, self.share = self._held.unbind()

    def set(self, lr: float, share: float) -> None:
        """Take the numbers of a step."""
        if self._held is None:
            self.lr, self.share = lr, share
        else:
            self._held.copy_(torch.tensor([lr, share]), non_blocking=True)


class WholeStep(Generic[Output]):
    """Repeats some work on the device.

    Parameters
    ----------
    work
        From indices on the device, ``(n_kinds, B)``, to tensors; everything else that it reads and
        writes stays where it is, and nothing in it waits for the device.
    device
        Where. On a CPU the work is done as it is, and the path is otherwise the same.
    """

    def __init__(self, work: Work[Output], device: torch.device) -> None:
        self._work, self._device = work, device
        self._indices = torch.zeros(0)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._output: Output | None = None

    def __call__(self, indices: np.ndarray) -> Output:
        """Do the work; what is returned is overwritten by the next one.

        Raises
        ------
        CannotRecordError
            If the work waits for the device, or does else what cannot be recorded.
        torch.OutOfMemoryError
            If there is not enough memory for it; nothing has been done then.
        """
        given = torch.from_numpy(indices)
        if self._device.type != "cuda":
            return self._work(given.to(self._device))
        if self._graph is None:
            self._indices = given.to(self._device)
            self._record()
        else:
            self._indices.copy_(given, non_blocking=True)
        assert self._graph is not None
        assert self._output is not None
        self._graph.replay()
        return self._output

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads (memory, records) may go on asking their own things of the driver.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._output = self._work(self._indices)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # generators and allocator are not to be relied on any more
            reason = str(error).strip().partition("\n")[0]
            raise CannotRecordError(
                f"a step cannot be recorded as a CUDA graph ({reason}); without it may work: "
                "set compute.cuda_graphs to false"
            ) from error
        self._graph = graph


class CannotRecordError(CfmvcError):
    """Some work is not fit for a CUDA graph."""
