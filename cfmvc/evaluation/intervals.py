r"""How sure an average over conditions is: other conditions, and other cells in each of them.

Conditions are drawn with replacement, and with it the noise of each one's own cells: scores differ
by it as well. What conditions have in common does not come out of that: conditions of a stratum
have the same controls, and with other ones all of their scores change together. So every average
has a second part: how far all conditions, on average, lie from their scores in one of the draws of
other cells, in which controls are drawn for all of a stratum at once. Of the variance :math:`V` of
that part the conditions' own noise (:math:`W / n`, of :math:`W` between conditions within a draw)
is there already, so that it counts :math:`\sqrt{1 - W / (n V)}`.

Averages of few that are drawn from as few lie too close: bounds are those of the expanded
percentile interval (Hesterberg 2015, doi:10.1080/00031305.2015.1089789), which has the width of
Student's t.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

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
        n_draws = self.draws.shape[1]
        if n == 1 and n_draws > 1:
            noise = self._deviations().std(ddof=1) * rng.standard_t(n_draws - 1, n_bootstrap)
            return np.asarray(self.values + noise)
        chosen = rng.integers(n, size=(n_bootstrap, n))
        means = self.values[chosen].mean(axis=1)
        if n_draws > 1:
            means += self._in_common()[rng.integers(n_draws, size=n_bootstrap)]
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

    def _in_common(self) -> Array:
        """Return how far each draw moves the average beyond what scores differ by, ``(n_draws,)``.

        Of two conditions or more.
        """
        n, deviations = len(self.values), self._deviations()
        moved = deviations.mean(axis=0)
        whole = moved.var(ddof=1)
        if whole == 0.0:
            return np.zeros_like(moved)
        own = deviations.var(axis=0, ddof=1).mean() / n
        return np.asarray(moved * np.sqrt(max(1.0 - own / whole, 0.0)))


def interval(means: Array, confidence: float, n: int = 0) -> tuple[float, float]:
    """Return the bounds between which the average lies, as likely on either side.

    Parameters
    ----------
    means
        Averages that might have been.
    confidence
        That it does.
    n
        Of how many scores each is the average; not given: the share of averages is taken as it is.
    """
    tail = expanded((1.0 - confidence) / 2, n)
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def expanded(tail: float, n: int) -> float:
    """Return the share of bootstrapped averages of ``n`` scores beyond a bound that a tail is.

    A single one has no others to be drawn, and its averages are spread by their own noise.
    """
    if n < 2:
        return tail
    return float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, tail)))
