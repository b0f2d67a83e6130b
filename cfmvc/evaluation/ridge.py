"""The shift of a condition, regressed on its perturbation and on the state of its controls."""

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from cfmvc.data.prepared import LEAST_CONTROLS
from cfmvc.data.vocabulary import split_label
from cfmvc.evaluation.conditions import Condition, Stratum
from cfmvc.evaluation.reference import Reference

Array = NDArray[np.float64]
N_STRATUM_PCS = 5
PENALTIES = np.logspace(-3, 3, 13)


class RidgeShift:
    """Ridge regression of deltas, one row a condition that was seen.

    Columns: one-hot perturbation (multi-hot for a combination, times the dose relative to the
    largest one of that perturbation), and the first 5 principal components of the strata's mean
    controls, of those that have some cells. The latter are scaled by one factor, so that the
    largest absolute score of a stratum in the regression is 1, the size of a one-hot entry; the
    leading components thus keep their weight. The penalty is the one of :data:`PENALTIES` with the
    least squared error when each stratum is left out; where there is but one, the smallest, which
    leaves each shift as it was measured.
    """

    def __init__(self, reference: Reference) -> None:
        conditions = list(reference.deltas)
        self._separator = reference.separator
        parts = {part for condition in conditions for part in self._parts(condition)}
        self._columns = {part: column for column, part in enumerate(sorted(parts))}
        doses = [(part, c.treatment.dose or 0.0) for c in conditions for part in self._parts(c)]
        self._max_dose = {part: dose or 1.0 for part, dose in sorted(doses)}  # the last one stays
        self._scores = stratum_scores(reference, {c.stratum for c in conditions})
        rows = np.stack([self._row(condition) for condition in conditions])
        shifts = np.stack([reference.deltas[condition] for condition in conditions])
        self._model = fitted_ridge(
            rows, shifts, [str(condition.stratum) for condition in conditions]
        )

    def predict(self, condition: Condition) -> tuple[Array, str]:
        """Return the shift, shape ``(n_genes,)``, and a note if a perturbation was never seen."""
        unseen = [part for part in self._parts(condition) if part not in self._columns]
        note = f"'{unseen[0]}' not seen; its column is 0" if unseen else ""
        return self._model.predict(self._row(condition)[None]).reshape(-1), note

    def _parts(self, condition: Condition) -> tuple[str, ...]:
        return split_label(condition.treatment.perturbation, self._separator)

    def _row(self, condition: Condition) -> Array:
        hot = np.zeros(len(self._columns))
        dose = condition.treatment.dose
        for part in self._parts(condition):
            if part in self._columns:
                hot[self._columns[part]] = 1.0 if dose is None else dose / self._max_dose[part]
        return np.concatenate([hot, self._scores[condition.stratum]])


def stratum_scores(reference: Reference, fitted: set[Stratum]) -> dict[Stratum, Array]:
    """Return principal components of the strata's mean controls, the largest of which is 1.

    Parameters
    ----------
    reference
        Gives the controls.
    fitted
        Strata that a regression sees: their scores say what the largest one is.
    """
    strata = reference.strata
    means = np.stack([reference.control_means[stratum] for stratum in strata])
    is_known = np.asarray([reference.n_controls(s) >= LEAST_CONTROLS for s in strata])
    if is_known.sum() < 2:
        is_known[:] = True
    # centred rows have one dimension fewer than there are strata
    n_components = min(N_STRATUM_PCS, int(is_known.sum()) - 1, means.shape[1])
    if n_components < 1:
        return {stratum: np.zeros(0) for stratum in strata}
    scores = PCA(n_components, svd_solver="full").fit(means[is_known]).transform(means)
    is_fitted = np.asarray([stratum in fitted for stratum in strata])
    largest = np.abs(scores[is_fitted & is_known]).max(initial=0.0)
    return dict(zip(strata, scores / (largest if largest > 0 else 1.0), strict=True))


def fitted_ridge(rows: Array, shifts: Array, groups: list[str]) -> Ridge:
    """Return a regression with the penalty of least error when each group is left out in turn."""
    penalty = float(PENALTIES[0])  # where there is none to leave out
    if len(set(groups)) > 1:
        penalty = float(PENALTIES[np.argmin(left_out_errors(rows, shifts, groups))])
    return Ridge(alpha=penalty).fit(rows, shifts)


def left_out_errors(rows: Array, shifts: Array, groups: list[str]) -> Array:
    """Return the squared error of each of :data:`PENALTIES` when each group is left out in turn.

    What scikit-learn's ``GridSearchCV`` finds with ``LeaveOneGroupOut``, by one decomposition in
    all instead of a fit for each group and penalty: rows that are left out are off by what they are
    off within the fit, divided by how little they tell of themselves (one minus their part of the
    hat matrix).

    Parameters
    ----------
    rows, shifts
        Regressors ``(n, n_columns)`` and what they explain, ``(n, n_genes)``.
    groups
        Of each row; two at least.

    Returns
    -------
    Means over groups of the mean over their rows and genes, ``(n_penalties,)``.
    """
    names, number = np.unique(groups, return_inverse=True)
    left, sizes, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    rest = shifts - shifts.mean(axis=0)
    told = left.T @ rest
    errors = np.zeros(len(PENALTIES))
    for column, penalty in enumerate(PENALTIES):
        shrunk = left * (sizes**2 / (sizes**2 + penalty))
        off = rest - shrunk @ told
        for group in range(len(names)):
            mine = np.flatnonzero(number == group)
            kept = np.eye(len(mine)) - 1.0 / len(rows) - shrunk[mine] @ left[mine].T
            errors[column] += np.mean(np.linalg.solve(kept, off[mine]) ** 2) / len(names)
    return errors
