"""Scores of a predicted mean shift against the true one; both of shape ``(n_genes,)``."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]
_MINKOWSKI = {"l1": "cityblock", "l2": "euclidean"}


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


def weighted_squared_error(predicted: Array, true: Array, weights: Array) -> float:
    """Weighted mean squared difference, >= 0; the weights add up to 1 (Mejia 2025, WMSE)."""
    return float(weights @ (predicted - true) ** 2)


def weighted_r2(predicted: Array, true: Array, weights: Array) -> float:
    """Weighted share of the shift's variance that is predicted, at most 1 (Mejia 2025, R2_w).

    0 for a prediction of the weighted mean shift at every gene, and where the true shift is
    constant.
    """
    spread = float(weights @ (true - weights @ true) ** 2)
    if spread <= 1e-24 * float(weights @ true**2):  # rounding alone
        return 0.0
    return 1.0 - weighted_squared_error(predicted, true, weights) / spread


def nearer_than_others(predicted: Array, own: Array, others: Array, metric: str) -> float:
    """``1 -`` share of the other perturbations' true shifts nearer to the prediction than its own.

    The rank of the own shift among all, scaled to [0, 1]; another one at the same distance counts
    half. A prediction of no shift is at the same cosine distance from all, and must not win by it.

    Parameters
    ----------
    predicted, own
        Predicted and true shift.
    others
        True shifts of the other perturbations of the stratum, shape ``(n_others, n_genes)``.
    metric
        ``l1``, ``l2`` or ``cosine``. A shift of 0 has no direction: at distance 1 from all.
    """
    farther = _distance(others, predicted, metric) - _distance(own[None], predicted, metric)
    return float(np.mean(0.5 + 0.5 * np.sign(farther)))


def _distance(shifts: Array, predicted: Array, metric: str) -> Array:
    if metric in _MINKOWSKI:  # without an array of the differences: a screen has many others
        return cdist(shifts, predicted[None], _MINKOWSKI[metric])[:, 0]
    norms = np.linalg.norm(shifts, axis=1) * np.linalg.norm(predicted)
    cosine = np.divide(shifts @ predicted, norms, out=np.zeros(len(shifts)), where=norms > 0)
    return 1.0 - cosine
