"""How sure an average over conditions is: other conditions, and other cells in each of them.

A hierarchical bootstrap (Davison and Hinkley 1997, section 3.8): conditions are drawn with
replacement, and for each of them one of the scores that other cells have given.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores of one method, or differences between two, condition by condition.

    Parameters
    ----------
    values
        Of the cells as they are, shape ``(n_conditions,)``.
    draws
        With other cells, shape ``(n_conditions, n_draws)``; no columns: cells are taken as they
        are, and only conditions vary.
    """

    values: Array
    draws: Array

    def mapped(self, to: Callable[[Array], Array]) -> "Scores":
        """Return a function of each score."""
        return Scores(to(self.values), to(self.draws))

    def minus(self, other: "Scores") -> "Scores":
        """Return the differences, condition by condition and draw by draw."""
        return Scores(self.values - other.values, self.draws - other.draws)

    def defined(self) -> "Scores":
        """Return the conditions in which the score is defined."""
        kept = np.isfinite(self.values)
        return Scores(self.values[kept], self.draws[kept])

    def means(self, n_bootstrap: int, rng: np.random.Generator) -> Array:
        """Return averages over conditions that might have been, shape ``(n_bootstrap,)``.

        NaN where there are none.
        """
        n = len(self.values)
        if n == 0:
            return np.full(n_bootstrap, np.nan)
        chosen = rng.integers(n, size=(n_bootstrap, n))
        if self.draws.shape[1] == 0:
            return self.values[chosen].mean(axis=1)
        drawn = rng.integers(self.draws.shape[1], size=chosen.shape)
        return self._likely()[chosen, drawn].mean(axis=1)

    def bounds(self, confidence: float) -> tuple[Array, Array]:
        """Return between what each condition's score would lie with other cells.

        Returns
        -------
        Lower and upper bounds, shape ``(n_conditions,)`` each. NaN where the score is not defined,
        and everywhere without draws.
        """
        low, high = (np.full(len(self.values), np.nan) for _ in range(2))
        kept = np.isfinite(self.values)
        if self.draws.shape[1] and kept.any():
            tail = (1.0 - confidence) / 2
            low[kept], high[kept] = np.quantile(
                self.defined()._likely(), [tail, 1.0 - tail], axis=1
            )
        return low, high

    def _likely(self) -> Array:
        """Return scores that other cells would have given, ``(n_conditions, n_draws)``.

        Drawing cells with replacement adds noise of its own, and with it an error to scores that
        noise worsens: within a condition, draws count by their distance from their mean.
        """
        likely = self.draws - np.nanmean(self.draws, axis=1, keepdims=True) + self.values[:, None]
        return np.where(np.isfinite(likely), likely, self.values[:, None])


def interval(means: Array, confidence: float) -> tuple[float, float]:
    """Return the bounds between which that share of the averages lies, as much on either side."""
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)
