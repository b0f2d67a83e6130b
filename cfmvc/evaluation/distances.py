"""Distances between populations of cells, unbiased, also where cells count more than once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]


def energy_distance(a: Array, b: Array) -> float:
    """``2 E|a-b| - E|a-a'| - E|b-b'|``, unbiased: means without the diagonal (Székely 2013).

    Parameters
    ----------
    a, b
        Populations of at least 2 cells, shapes ``(n, d)`` and ``(m, d)``.

    Returns
    -------
    0 in expectation for equal distributions, hence sometimes slightly below.
    """
    return Pairs(a, b, 1.0).energy_distance(np.ones(len(a)), np.ones(len(b)))


def squared_mmd(a: Array, b: Array, bandwidth: float) -> float:
    """Squared maximum mean discrepancy, unbiased, Gaussian kernel (Gretton 2012, eq. 3).

    Parameters
    ----------
    a, b
        Populations of at least 2 cells, shapes ``(n, d)`` and ``(m, d)``.
    bandwidth
        Standard deviation of the kernel ``exp(-|x-y|^2 / (2 bandwidth^2))``.
    """
    return Pairs(a, b, bandwidth).squared_mmd(np.ones(len(a)), np.ones(len(b)))


def median_bandwidth(a: Array, b: Array) -> float:
    """Median distance between two different cells of the pooled populations (1 if that is 0)."""
    pooled = np.concatenate([a, b])
    median = float(np.median(cdist(pooled, pooled)[np.triu_indices(len(pooled), k=1)]))
    return median if median > 0 else 1.0


@dataclass(frozen=True)
class Pairs:
    """All distances within and between two populations, computed once for any weights.

    A cell that counts twice makes no pair with itself: its copy would be at distance 0, which no
    two different cells are, and the mean would be biased. The same holds for virtual cells that
    are made of the same control cell: a mean over pairs is unbiased if the two are independent.

    Parameters
    ----------
    a, b
        Shapes ``(n, d)`` and ``(m, d)``.
    bandwidth
        Of the kernel, see :func:`squared_mmd`.
    origin
        Number of what each cell of ``a`` was made of, ``(n,)``; None: each of something else.
    """

    a: Array
    b: Array
    bandwidth: float
    origin: NDArray[np.int64] | None = None

    def energy_distance(self, a_weights: Array, b_weights: Array) -> float:
        """Return the energy distance of the cells, each counted as often as its weight says."""
        cross, within_a, within_b = self._distances
        between = _mean(cross, a_weights, b_weights)
        return 2 * between - within_a.mean(a_weights) - within_b.mean(b_weights)

    def squared_mmd(self, a_weights: Array, b_weights: Array) -> float:
        """Return the squared MMD of the cells, each counted as often as its weight says."""
        cross, within_a, within_b = self._kernels
        within = within_a.mean(a_weights) + within_b.mean(b_weights)
        return within - 2 * _mean(cross, a_weights, b_weights)

    @cached_property
    def _distances(self) -> "tuple[Array, _Among, _Among]":
        return self._mapped(lambda distance: distance)

    @cached_property
    def _kernels(self) -> "tuple[Array, _Among, _Among]":
        return self._mapped(lambda distance: np.exp(-(distance**2) / (2 * self.bandwidth**2)))

    @cached_property
    def _raw(self) -> tuple[Array, Array, Array]:
        return cdist(self.a, self.b), cdist(self.a, self.a), cdist(self.b, self.b)

    def _mapped(self, to: Callable[[Array], Array]) -> "tuple[Array, _Among, _Among]":
        mine = np.arange(len(self.a)) if self.origin is None else self.origin
        cross, within_a, within_b = (to(distances) for distances in self._raw)
        own = np.arange(len(self.b))
        return cross, _Among.of(within_a, mine), _Among.of(within_b, own)


@dataclass(frozen=True)
class _Among:
    """Values of the pairs of cells of one population; 0 where both are of one origin."""

    values: Array
    origin: NDArray[np.int64]

    @classmethod
    def of(cls, values: Array, origin: NDArray[np.int64]) -> "_Among":
        return cls(np.where(origin[:, None] == origin[None, :], 0.0, values), origin)

    def mean(self, weights: Array) -> float:
        """Return the mean over pairs of cells of different origins."""
        of_origin = np.bincount(self.origin, weights)
        n_pairs = weights.sum() ** 2 - (of_origin**2).sum()
        return float(weights @ self.values @ weights / n_pairs)


def _mean(matrix: Array, rows: Array, columns: Array) -> float:
    return float(rows @ matrix @ columns / (rows.sum() * columns.sum()))
