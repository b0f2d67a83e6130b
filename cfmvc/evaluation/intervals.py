r"""How sure an average over conditions is: other conditions, and other cells in each of them.

Conditions are drawn with replacement, and with it the noise of each one's own cells: scores differ
by it as well. What conditions have in common does not come out of that: conditions of a stratum
have the same controls, and with other ones all of their scores change together. So every average
has a second part: how far all conditions, on average, lie from their scores in one of the draws of
other cells, in which controls are drawn for all of a stratum at once. Of the variance :math:`V` of
that part the conditions' own noise (:math:`W / n`, of :math:`W` between conditions within a draw)
is there already, so that the rest, :math:`V - W / n`, is added (normal, or as Student's t, for it
is known by some twenty draws).

Averages of few that are drawn from as few lie too close to each other (Hesterberg 2015,
doi:10.1080/00031305.2015.1089789). Their distances from the average are stretched as Student's t
is: by :math:`\sqrt{n / \chi^2_{n-1}}`, drawn anew for each.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

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

    def means(self, n_bootstrap: int, rng: np.random.Generator, stretched: bool = True) -> Array:
        """Return averages over conditions that might have been, shape ``(n_bootstrap,)``.

        NaN where there are none.

        Parameters
        ----------
        n_bootstrap, rng
            How many.
        stretched
            Whether they are to be as far apart as few conditions leave it open.
        """
        n = len(self.values)
        if n == 0:
            return np.full(n_bootstrap, np.nan)
        n_draws = self.draws.shape[1]
        if n == 1 and n_draws > 1:
            noise = self._deviations().std(ddof=1) * rng.standard_t(n_draws - 1, n_bootstrap)
            return np.asarray(self.values + noise)
        chosen = rng.integers(n, size=(n_bootstrap, n))
        means = self.values[chosen].mean(axis=1)
        if stretched and n > 1:
            middle = self.values.mean()
            means = middle + (means - middle) * np.sqrt(n / rng.chisquare(n - 1, n_bootstrap))
        if n > 1 and n_draws > 1:
            means += self._in_common() * rng.standard_t(n_draws - 1, n_bootstrap)
        return np.asarray(means)

    def bounds(self, confidence: float) -> tuple[Array, Array]:
        """Return between what each condition's score would lie with other cells.

        By Student's t: quantiles of some twenty draws would be too near.

        Returns
        -------
        Lower and upper bounds, shape ``(n_conditions,)`` each. NaN where the score is not defined,
        and everywhere without draws.
        """
        n_draws, width = self.draws.shape[1], np.full(len(self.values), np.nan)
        kept = np.isfinite(self.values)
        if n_draws > 1 and kept.any():
            quantile = stdtrit(n_draws - 1, 0.5 + confidence / 2)
            width[kept] = quantile * self.defined()._deviations().std(axis=1, ddof=1)
        return self.values - width, self.values + width

    def _deviations(self) -> Array:
        """Return how far other cells would have moved the scores, ``(n_conditions, n_draws)``.

        Drawing cells with replacement adds noise of its own, and with it an error to scores that
        noise worsens: within a condition, draws count by their distance from their mean.
        """
        found = self.draws - np.nanmean(self.draws, axis=1, keepdims=True)
        return np.where(np.isfinite(found), found, 0.0)

    def _in_common(self) -> float:
        """Return how far draws move the average beyond what scores differ by.

        A standard deviation, of two conditions or more.
        """
        n, deviations = len(self.values), self._deviations()
        whole = deviations.mean(axis=0).var(ddof=1)
        own = deviations.var(axis=0, ddof=1).mean() / n
        return float(np.sqrt(max(whole - own, 0.0)))


def interval(means: Array, confidence: float) -> tuple[float, float]:
    """Return the bounds between which that share of the averages lies, as much on either side."""
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)
