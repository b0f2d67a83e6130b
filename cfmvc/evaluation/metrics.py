"""The metrics, one function each, and the one table that declares them.

To add one: write the function and put a line into :data:`METRICS`. Cells are in the log space of
:func:`cfmvc.evaluation.normalise.log_normalise`; *deltas* are mean shifts against the real controls
of the stratum, for the truth and for the prediction alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cfmvc.evaluation.case import Case

Array = NDArray[np.float64]


def pearson(predicted: Array, true: Array) -> float:
    """Pearson's r of two vectors, in [-1, 1]; 0 where one of them is constant."""
    a, b = predicted - predicted.mean(), true - true.mean()
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    # a prediction of one repeated number differs from its mean by rounding alone
    scale = np.abs(predicted).max() * np.abs(true).max() * len(true)
    return float(a @ b) / norms if norms > 1e-12 * scale else 0.0


def mean_squared_error(predicted: Array, true: Array) -> float:
    """Mean squared difference of two vectors, >= 0."""
    return float(np.mean((predicted - true) ** 2))


def mean_absolute_error(predicted: Array, true: Array) -> float:
    """Mean absolute difference of two vectors, >= 0."""
    return float(np.mean(np.abs(predicted - true)))


def direction(predicted: Array, true: Array) -> float:
    """Share of right signs, in [0, 1]; a predicted or true shift of 0 counts one half."""
    return float(np.mean(0.5 + 0.5 * np.sign(predicted) * np.sign(true)))


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
    return float(2 * cdist(a, b).mean() - _off_diagonal(cdist(a, a)) - _off_diagonal(cdist(b, b)))


def squared_mmd(a: Array, b: Array, bandwidth: float) -> float:
    """Squared maximum mean discrepancy, unbiased, Gaussian kernel (Gretton 2012, eq. 3).

    Parameters
    ----------
    a, b
        Populations of at least 2 cells, shapes ``(n, d)`` and ``(m, d)``.
    bandwidth
        Standard deviation of the kernel ``exp(-|x-y|^2 / (2 bandwidth^2))``.
    """

    def kernel(x: Array, y: Array) -> Array:
        return np.exp(-cdist(x, y, "sqeuclidean") / (2 * bandwidth**2))

    within = _off_diagonal(kernel(a, a)) + _off_diagonal(kernel(b, b))
    return float(within - 2 * kernel(a, b).mean())


def median_bandwidth(a: Array, b: Array) -> float:
    """Median distance between two different cells of the pooled populations (1 if that is 0)."""
    pooled = np.concatenate([a, b])
    median = float(np.median(cdist(pooled, pooled)[np.triu_indices(len(pooled), k=1)]))
    return median if median > 0 else 1.0


def variance_ratio(predicted: Array, true: Array) -> float:
    """Median over genes of predicted over true variance, >= 0; 1 is right, 0 is collapse.

    Genes that do not vary in the true cells have no ratio and are left out.
    """
    true_variance = true.var(axis=0, ddof=1)
    varies = true_variance > 0
    return float(np.median(predicted.var(axis=0, ddof=1)[varies] / true_variance[varies]))


def discrimination(predicted: Array, own: Array, others: Array) -> float:
    """``1 -`` share of other perturbations' true deltas nearer (L1) to the prediction than its own.

    Parameters
    ----------
    predicted, own
        Predicted and true delta, shape ``(n_genes,)``.
    others
        True deltas of the other perturbations of the stratum, shape ``(n_others, n_genes)``.
    """
    return 1.0 - float(
        np.mean(np.abs(others - predicted).sum(axis=1) < np.abs(own - predicted).sum())
    )


@dataclass(frozen=True)
class Metric:
    """What the tables, the gate and the reader need to know of a metric.

    Parameters
    ----------
    of
        The metric of a case.
    better
        ``higher``, ``lower``, or ``one``: the nearer to 1 the better.
    chance
        What a prediction that knows nothing gets; None where that depends on the data (there it
        is the score of the baseline ``control``).
    needs
        What it is computed from, in words.
    is_defined
        Whether the case has what the metric needs.
    """

    of: Callable[[Case], float]
    better: Literal["higher", "lower", "one"]
    chance: float | None
    needs: str
    is_defined: Callable[[Case], bool] = lambda case: True

    def loss(self, value: float) -> float:
        """Return a number that is the smaller the better, whatever the direction."""
        return {"higher": -value, "lower": value, "one": abs(value - 1.0)}[self.better]

    @property
    def arrow(self) -> str:
        """The direction as a sign for the heading of a column."""
        return {"higher": "↑", "lower": "↓", "one": "→1"}[self.better]


def _varies(case: Case) -> bool:
    return bool((case.true[:, case.top].var(axis=0) > 0).any())


METRICS: dict[str, Metric] = {
    "pearson_delta": Metric(
        lambda c: pearson(c.predicted_delta, c.true_delta), "higher", 0.0, "deltas of all genes"
    ),
    "pearson_delta_top50": Metric(
        lambda c: pearson(c.predicted_delta[c.top], c.true_delta[c.top]),
        "higher",
        0.0,
        "deltas of the top genes",
    ),
    "mse_top50": Metric(
        lambda c: mean_squared_error(c.predicted_delta[c.top], c.true_delta[c.top]),
        "lower",
        None,
        "deltas of the top genes",
    ),
    "mae_delta": Metric(
        lambda c: mean_absolute_error(c.predicted_delta, c.true_delta),
        "lower",
        None,
        "deltas of all genes",
    ),
    "direction_top50": Metric(
        lambda c: direction(c.predicted_delta[c.top], c.true_delta[c.top]),
        "higher",
        0.5,
        "deltas of the top genes",
    ),
    "energy_distance": Metric(
        lambda c: energy_distance(c.predicted_pcs, c.true_pcs),
        "lower",
        None,
        "cells in the principal components of the training cells",
    ),
    "mmd2": Metric(
        lambda c: squared_mmd(
            c.predicted_pcs, c.true_pcs, median_bandwidth(c.true_pcs, c.control_pcs)
        ),
        "lower",
        None,
        "cells in the principal components of the training cells",
    ),
    "variance_ratio_top50": Metric(
        lambda c: variance_ratio(c.predicted[:, c.top], c.true[:, c.top]),
        "one",
        None,
        "cells, top genes",
        is_defined=_varies,
    ),
    "discrimination": Metric(
        lambda c: discrimination(c.predicted_delta, c.true_delta, c.other_deltas),
        "higher",
        0.5,
        "true deltas of the other perturbations held out in the stratum",
        is_defined=lambda c: len(c.other_deltas) > 0,
    ),
}


def _off_diagonal(square: Array) -> float:
    n = len(square)
    return float((square.sum() - np.trace(square)) / (n * (n - 1)))
