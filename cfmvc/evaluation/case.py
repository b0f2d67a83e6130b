"""One prediction of one condition with all that the metrics look at."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One prediction beside the truth; cells in log space, shapes ``(n_cells, n_genes)``.

    Parameters
    ----------
    predicted, true
        Predicted and real perturbed cells.
    control_mean
        Mean of the real controls of the stratum, shape ``(n_genes,)``. Predicted controls have
        no place here, so that shifting them cannot raise a score.
    predicted_pcs, true_pcs, control_pcs
        At most ``max_cells`` of each population in the principal components of the training cells.
    top
        Numbers of the most shifted genes, see :func:`top_genes`.
    other_deltas
        True deltas of the other perturbations of the stratum, shape ``(n_others, n_genes)``.
    """

    predicted: Array
    true: Array
    control_mean: Array
    predicted_pcs: Array
    true_pcs: Array
    control_pcs: Array
    top: NDArray[np.int64]
    other_deltas: Array

    @cached_property
    def predicted_delta(self) -> Array:
        """Mean shift of the predicted cells against the real controls, shape ``(n_genes,)``."""
        return _without_rounding(self.predicted.mean(axis=0) - self.control_mean)

    @cached_property
    def true_delta(self) -> Array:
        """Mean shift of the real cells against the real controls, shape ``(n_genes,)``."""
        return self.true.mean(axis=0) - self.control_mean


def _without_rounding(delta: Array) -> Array:
    """Set to 0 what is left of equal means added up in another order: it correlates by chance."""
    return np.where(np.abs(delta) > 1e-10, delta, 0.0)


def welch_t(a: Array, b: Array) -> Array:
    """Welch's t of each column, shape ``(n_genes,)``; 0 for a gene that is constant in both."""
    difference = a.mean(axis=0) - b.mean(axis=0)
    error = np.sqrt(a.var(axis=0, ddof=1) / len(a) + b.var(axis=0, ddof=1) / len(b))
    # both constant but different: the shift is beyond doubt, yet only its sign is known
    constant = np.where(np.abs(difference) > 1e-12, np.copysign(np.inf, difference), 0.0)
    return np.divide(difference, error, out=constant, where=error > 1e-12)


def top_genes(true: Array, controls: Array, n_top: int) -> NDArray[np.int64]:
    """Return the genes of largest ``|t|`` (Welch) between true cells and real controls.

    At most half of the panel, at least one; ties go to the gene that comes first.
    """
    n_kept = max(1, min(n_top, true.shape[1] // 2))
    return np.argsort(-np.abs(welch_t(true, controls)), kind="stable")[:n_kept]
