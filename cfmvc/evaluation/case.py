"""One prediction of one condition beside the truth, with all that the metrics look at."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cfmvc.evaluation.distances import Pairs
from cfmvc.evaluation.moments import Moments
from cfmvc.evaluation.responses import most_shifted, welch_t

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """What is true of a condition, whatever is predicted.

    Parameters
    ----------
    top
        Numbers of the most shifted genes, by Welch's t between true cells and real controls.
    weights
        Weight of each gene, see :func:`cfmvc.evaluation.responses.gene_weights`.
    responds
        Which genes differ from the controls at a false discovery rate of 5 %.
    stratum_means
        Means of the real cells of all scored conditions of the stratum, which these share, shape
        ``(n_conditions, n_genes)``.
    others
        Which of them are of other perturbations.
    """

    top: NDArray[np.int64]
    weights: Array
    responds: NDArray[np.bool_]
    stratum_means: Array
    others: NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """One prediction beside the truth.

    Parameters
    ----------
    predicted, true
        Of the predicted and the real perturbed cells.
    controls
        Of the real controls of the stratum. Predicted controls have no place here, so that shifting
        them cannot raise a score.
    pairs
        Of predicted and true cells, in the principal components of the training cells.
    truth
        What does not depend on the prediction.
    """

    predicted: Moments
    true: Moments
    controls: Moments
    pairs: Pairs
    truth: Truth

    @cached_property
    def predicted_delta(self) -> Array:
        """Mean shift of the predicted cells against the real controls, shape ``(n_genes,)``."""
        return _without_rounding(self.predicted.mean - self.controls.mean)

    @cached_property
    def true_delta(self) -> Array:
        """Mean shift of the real cells against the real controls, shape ``(n_genes,)``."""
        return self.true.mean - self.controls.mean

    @cached_property
    def other_deltas(self) -> Array:
        """True shifts of the other perturbations of the stratum, shape ``(n_others, n_genes)``."""
        return self.truth.stratum_means[self.truth.others] - self.controls.mean

    @cached_property
    def predicted_top(self) -> NDArray[np.int64]:
        """The genes that the prediction shifts most, as many as are most shifted in truth.

        Genes that it does not shift at all are in no order and left out.
        """
        t = welch_t(self.predicted, self.controls)
        t = np.where(self.predicted_delta == 0.0, 0.0, t)
        ranked = most_shifted(t, len(self.truth.top))
        return ranked[t[ranked] != 0.0]


def _without_rounding(delta: Array) -> Array:
    """Set to 0 what is left of equal means added up in another order: it correlates by chance."""
    return np.where(np.abs(delta) > 1e-10, delta, 0.0)
