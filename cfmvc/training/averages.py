"""Exponential average of the weights, which is what a stage validates and keeps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class AveragedWeights:
    """Average of some parameters over the steps; with decay 0 the parameters themselves.

    Parameters
    ----------
    parameters
        What is averaged.
    decay
        Weight of the past; it grows from 0 with the steps (``(1 + n) / (10 + n)``), so that the
        initial values are forgotten fast.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.average = [p.detach().clone() for p in parameters] if decay > 0 else []
        self.n_updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights."""
        if not self.average:
            return
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1.0 - decay)
        self.n_updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Exchange the parameters for their average inside the block."""
        kept = [p.detach().clone() for p in self.parameters] if self.average else []
        self._set(self.average)
        try:
            yield
        finally:
            self._set(kept)

    def values(self) -> list[torch.Tensor]:
        """Return a copy of the averaged weights."""
        return [v.detach().clone() for v in (self.average or self.parameters)]

    def finish(self, values: list[torch.Tensor]) -> None:
        """Put ``values`` into the parameters for good."""
        self._set(values)

    @torch.no_grad()
    def _set(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=False):
            parameter.copy_(value)
