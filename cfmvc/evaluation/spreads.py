"""Scores of what varies within a population: a model that has collapsed has the mean alone."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_LARGEST_RATIO = 1000.0


def variance_ratio(predicted: Array, true: Array) -> float:
    """Median over genes of predicted over true variance, >= 0; 1 is right, 0 is collapse.

    Genes that do not vary in the true cells have no ratio and are left out.

    Parameters
    ----------
    predicted, true
        Variances, shape ``(n_genes,)``.
    """
    varies = true > 0
    return float(np.median(predicted[varies] / true[varies]))


def variance_error(predicted: Array, true: Array) -> float:
    """Mean over genes of ``|ln(predicted / true variance)|``, >= 0; 0 is calibrated.

    Too little and too much weigh the same: ln 2 for half and for twice the variance. Ratios beyond
    1000 count as that. Genes that do not vary in the true cells are left out.

    Parameters
    ----------
    predicted, true
        Variances, shape ``(n_genes,)``.
    """
    varies = true > 0
    ratio = np.clip(predicted[varies] / true[varies], 1 / _LARGEST_RATIO, _LARGEST_RATIO)
    return float(np.mean(np.abs(np.log(ratio))))


def correlation_error(predicted: Array, true: Array) -> float:
    """Mean over pairs of genes of the absolute difference of their correlations, in [0, 2].

    A gene that does not vary in the predicted cells correlates with nothing there; those that do
    not vary in the true cells are left out.

    Parameters
    ----------
    predicted, true
        Covariances, shape ``(n_genes, n_genes)``.
    """
    varies = np.diagonal(true) > 0
    among = np.ix_(varies, varies)
    pairs = np.triu_indices(int(varies.sum()), k=1)
    difference = _correlations(predicted[among]) - _correlations(true[among])
    return float(np.mean(np.abs(difference[pairs])))


def _correlations(covariance: Array) -> Array:
    spread = np.sqrt(np.diagonal(covariance).clip(0.0))
    products = np.outer(spread, spread)
    r = np.divide(covariance, products, out=np.zeros_like(covariance), where=products > 0)
    return r.clip(-1.0, 1.0)
