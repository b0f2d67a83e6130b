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

    def update(self) -> None:
        """Take in the present weights."""
        if self.decay == 0:
            return
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        self.average.lerp_(self.weights, 1.0 - decay)
        self.n_updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Exchange the weights for their average inside the block."""
        kept = self.weights.clone()
        self.weights.copy_(self.average)
        try:
            yield
        finally:
            self.weights.copy_(kept)
