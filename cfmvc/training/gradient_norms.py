"""Gradient norms by module at every step: kept on the device, read once an epoch.

A step costs a norm a module and the copy of a row; nothing waits for the device, and nothing of the
training is touched: its results are the same to the bit.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cfmvc.training.flat import FlatParameters

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}
BINS_A_DECADE, LOWEST, HIGHEST = 10, -8, 4  # of log10 norms; what lies outside is in the last bins
_FIRST_ROWS = 1024  # steps that there is room for at first
_LEAST_COLUMNS = 40  # a short training's epochs are cut, so that a picture has a course to show


@dataclass
class GradientNorms:
    """Norms of the gradients of a training's modules.

    Parameters
    ----------
    stage
        Name of the stage.
    flat
        Everything that learns; a module is a child of one of the modules that it consists of
        (``EncoderVAE.moments``), or a parameter of its own.
    n_epochs
        Epochs planned.
    """

    stage: str
    flat: FlatParameters
    n_epochs: int

    def __post_init__(self) -> None:
        spans = spans_of_modules(self.flat)
        self.modules = list(spans)
        self._views = [self.flat.gradient[span] for span in spans.values()]
        self._table = self.flat.gradient.new_empty(_FIRST_ROWS, len(spans))
        self._n = 0

    def note(self) -> None:
        """Keep the norms of the present step, before clipping."""
        if self._n == len(self._table):  # of the first epoch alone
            self._table = torch.cat([self._table, torch.empty_like(self._table)])
        torch.stack(torch._foreach_norm(self._views), out=self._table[self._n])
        self._n += 1

    @property
    def rows(self) -> torch.Tensor | None:
        """What a checkpoint holds: the norms of the epoch so far, ``(n, n_modules)``."""
        return self._table[: self._n] if self._n else None

    @rows.setter
    def rows(self, rows: torch.Tensor | None) -> None:
        self._n = 0 if rows is None else len(rows)
        if rows is not None:
            if self._n > len(self._table):
                self._table = torch.empty_like(rows)
            self._table[: self._n] = rows

    def close_epoch(self, epoch: int) -> list[dict[str, Any]]:
        """Read the norms of an epoch from the device, and return what is kept of them.

        Returns
        -------
        list of dict
            Plain values: ``stage, epoch, n_steps``, and of each module ``quantiles`` (of its finite
            norms), ``not_finite`` (steps), and ``histograms``: over parts of the epoch, numbers of
            steps by bin.
        """
        norms = self._table[: self._n].double().cpu().numpy()
        self._n = 0
        if not len(norms):
            return []
        columns = list(zip(self.modules, norms.T, strict=True))
        n_parts = min(len(norms), math.ceil(_LEAST_COLUMNS / max(self.n_epochs, 1)))
        kept = {
            "stage": self.stage,
            "epoch": epoch,
            "n_steps": len(norms),
            "quantiles": {name: _quantiles(column) for name, column in columns},
            "not_finite": {name: int((~np.isfinite(column)).sum()) for name, column in columns},
            "histograms": {
                name: [_histogram(part) for part in np.array_split(column, n_parts)]
                for name, column in columns
            },
        }
        return [kept]


class NoGradientNorms:
    """Keeps nothing; what a training has unless its picture is asked for."""

    rows: torch.Tensor | None = None

    def note(self) -> None:
        """Do nothing."""

    def close_epoch(self, epoch: int) -> list[dict[str, Any]]:
        """Return nothing."""
        return []


def spans_of_modules(flat: FlatParameters) -> dict[str, slice]:
    """Return where in the flat array each module's parameters are; they lie one after the other."""
    spans: dict[str, slice] = {}
    for name, place in _places(flat):
        module = ".".join(name.split(".")[:2])
        start = spans[module].start if module in spans else place.start
        spans[module] = slice(start, place.stop)
    return spans


def _places(flat: FlatParameters) -> Iterator[tuple[str, slice]]:
    return zip(flat.named, flat.places, strict=True)


def _quantiles(norms: np.ndarray) -> list[float | None]:
    finite = norms[np.isfinite(norms)]
    if not len(finite):
        return [None] * len(QUANTILES)
    return [float(value) for value in np.quantile(finite, list(QUANTILES.values()))]


def _histogram(norms: np.ndarray) -> list[list[int]]:
    """Return pairs of a bin and its number of steps; empty bins are left out."""
    finite = norms[np.isfinite(norms)]
    height = np.log10(np.maximum(finite, 10.0 ** (LOWEST - 1))) - LOWEST
    last = (HIGHEST - LOWEST) * BINS_A_DECADE - 1
    bins = np.clip(np.floor(height * BINS_A_DECADE), 0, last).astype(int)
    return [[int(b), int(n)] for b, n in zip(*np.unique(bins, return_counts=True), strict=True)]
