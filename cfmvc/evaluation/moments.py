"""Means and variances of a population of cells, as it is and as other cells would have made it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_ROUNDING = 1e-12  # of a sum of squares; what varies has more


@dataclass(frozen=True)
class Moments:
    """All that metrics need to know of a population.

    Parameters
    ----------
    n_cells
        Number of cells.
    mean, variance
        Of each gene in log space, shape ``(n_genes,)``; the variance with ``n - 1``.
    top_covariance
        Covariance of the most shifted genes, shape ``(n_top, n_top)``.
    pc_weights
        How often each cell of the population's principal components counts, shape ``(n_pcs,)``.
    """

    n_cells: int
    mean: Array
    variance: Array
    top_covariance: Array
    pc_weights: Array


@dataclass(frozen=True)
class Population:
    """Cells of one condition.

    Parameters
    ----------
    cells
        Log space, shape ``(n_cells, n_genes)``.
    pcs
        Principal components of some of them, shape ``(n_pcs, n_components)``.
    of_pcs
        Which cells these are, shape ``(n_pcs,)``.
    origin
        Number of what each cell was made of, shape ``(n_cells,)``; its own, if of nothing that
        others are made of, too.
    """

    cells: Array
    pcs: Array
    of_pcs: NDArray[np.int64]
    origin: NDArray[np.int64]

    def moments(self, top: NDArray[np.int64]) -> Moments:
        """Return the moments of the cells as they are."""
        varies = (self.cells != self.cells[0]).any(axis=0)  # the mean of equal numbers is rounded
        return Moments(
            len(self.cells),
            self.cells.mean(axis=0),
            self.cells.var(axis=0, ddof=1) * varies,
            _covariance(self.cells[:, top]) * np.outer(varies[top], varies[top]),
            np.ones(len(self.pcs)),
        )

    def resampled(self, top: NDArray[np.int64], drawn: Array) -> Iterator[Moments]:
        """Yield the moments of the cells of origins that are drawn with replacement.

        Cells of one origin come and go together: another control cell would have given others.
        Those drawn more than once are counted, not copied: matrices of distances serve all draws.

        Parameters
        ----------
        top
            Numbers of the most shifted genes.
        drawn
            How often each origin is drawn, ``(n_draws, n_origins)``; where no two cells of
            different origins are left, all are taken once.
        """
        if not len(drawn):
            return
        counts = self._counts(drawn)
        n = counts.sum(axis=1)
        # around the mean, so that squares do not lose the digits of a small variance
        centre = self.cells.mean(axis=0)
        centred = self.cells - centre
        means = counts @ centred / n[:, None]
        squares = counts @ centred**2
        spreads = _of_what_varies(squares - n[:, None] * means**2, squares)
        some = centred[:, top]
        for size, weights, mean, spread in zip(n, counts, means, spreads, strict=True):
            products = (some.T * weights) @ some - np.outer(mean[top], mean[top]) * size
            varies = spread[top] > 0
            covariance = products * np.outer(varies, varies) / (size - 1)
            here = weights[self.of_pcs]
            yield Moments(int(size), mean + centre, spread / (size - 1), covariance, here)

    def _counts(self, drawn: Array) -> Array:
        """Return how often each cell is drawn, ``(n_draws, n_cells)``."""
        here = np.unique(self.origin)
        are_few = (drawn[:, here] > 0).sum(axis=1) < 2
        return np.where(are_few[:, None], 1.0, drawn[:, self.origin])


def drawn_with_replacement(n: int, n_draws: int, rng: np.random.Generator) -> Array:
    """Return how often each of ``n`` is drawn, as many in all, ``(n_draws, n)``."""
    counts = rng.multinomial(n, np.full(n, 1 / n), size=n_draws).astype(np.float64)
    # one, drawn n times, makes no pair; of two every other draw would be such a one
    while (alone := counts.max(axis=1, initial=0) == n).any():
        counts[alone] = rng.multinomial(n, np.full(n, 1 / n), size=int(alone.sum()))
    return counts


def _covariance(cells: Array) -> Array:
    centred = cells - cells.mean(axis=0)
    return centred.T @ centred / (len(cells) - 1)


def _of_what_varies(spread: Array, squares: Array) -> Array:
    """Return sums of squares around means, 0 where all that is left of them is rounding.

    A gene whose expressing cells were not drawn does not vary; a rest of 1e-17 would be a variance.
    """
    return np.where(spread > _ROUNDING * squares, spread, 0.0)
