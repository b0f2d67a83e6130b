"""Exponential average of the weights, which is what a stage validates and keeps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class AveragedWeights:
    """Average of some weights over the steps; with decay 0 the weights themselves.

    Parameters
    ----------
    weights
        What is averaged, ``(n,)``.
    decay
        Weight of the past; it grows from 0 with the steps (``(1 + n) / (10 + n)``), so that the
        initial values are forgotten fast.
    """

    def __init__(self, weights: torch.Tensor, decay: float) -> None:
        self.weights, self.decay = weights.detach(), decay
        self.average = self.weights.clone() if decay > 0 else self.weights
        self.n_updates = 0

    @property
    def next_share(self) -> float:
        """What the present weights are going to be of the average, when they are taken in."""
        return 1.0 - min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))

    def update(self, share: float | torch.Tensor) -> None:
        """Take in the present weights, as that share of the average; :meth:`count` counts."""
        if self.decay > 0:
            self.average.lerp_(self.weights, share)

    def count(self) -> None:
        """Take note that an update has been done."""
        self.n_updates += self.decay > 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Exchange the weights for their average inside the block."""
        kept = self.weights.clone()
        self.weights.copy_(self.average)
        try:
            yield
        finally:
            self.weights.copy_(kept)
