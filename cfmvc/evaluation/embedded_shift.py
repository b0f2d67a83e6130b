"""The shift of a condition, regressed on the embeddings of its perturbations."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cfmvc.data.vocabulary import split_label
from cfmvc.evaluation.conditions import Condition
from cfmvc.evaluation.reference import Reference
from cfmvc.evaluation.ridge import fitted_ridge, stratum_scores

Array = NDArray[np.float64]


class EmbeddedShift:
    """Ridge regression of deltas, one row a condition that was seen.

    As :class:`~cfmvc.evaluation.ridge.RidgeShift`, with the embeddings in the place of one-hot
    labels, so that perturbations that were never seen have a shift of their own. Columns: how many
    perturbations there are (times their doses, relative to the largest one of each), the sum of
    their vectors (likewise), and the state of the controls. Vectors count from the middle of those
    that were seen, and are scaled by one factor, so that the longest of these has length 1. The
    penalty is that of least error when each perturbation is left out.

    Parameters
    ----------
    reference
        With embeddings.
    """

    def __init__(self, reference: Reference) -> None:
        conditions = list(reference.deltas)
        self._separator = reference.separator
        seen = sorted({part for condition in conditions for part in self._parts(condition)})
        self._vectors = _scaled(reference.embeddings, seen)
        doses = [(part, c.treatment.dose or 0.0) for c in conditions for part in self._parts(c)]
        self._max_dose = {part: dose or 1.0 for part, dose in sorted(doses)}  # the last one stays
        self._scores = stratum_scores(reference, {c.stratum for c in conditions})
        rows = np.stack([self._row(condition) for condition in conditions])
        shifts = np.stack([reference.deltas[condition] for condition in conditions])
        self._model = fitted_ridge(rows, shifts, [c.treatment.perturbation for c in conditions])

    def predict(self, condition: Condition) -> tuple[Array, str]:
        """Return the shift, shape ``(n_genes,)``, and a note if a perturbation has no vector."""
        unknown = [part for part in self._parts(condition) if part not in self._vectors]
        note = f"'{unknown[0]}' has no embedding; the middle of all" if unknown else ""
        return self._model.predict(self._row(condition)[None]).reshape(-1), note

    def _parts(self, condition: Condition) -> tuple[str, ...]:
        return split_label(condition.treatment.perturbation, self._separator)

    def _row(self, condition: Condition) -> Array:
        dose, largest = condition.treatment.dose, max(self._max_dose.values())
        middle = np.zeros(len(next(iter(self._vectors.values()))))
        row = np.zeros(1 + len(middle))
        for part in self._parts(condition):
            strength = 1.0 if dose is None else dose / self._max_dose.get(part, largest)
            row += strength * np.append(1.0, self._vectors.get(part, middle))
        return np.concatenate([row, self._scores[condition.stratum]])


def _scaled(embeddings: pd.DataFrame | None, seen: list[str]) -> dict[str, Array]:
    """Return all vectors from the middle of those that were seen, of which the longest is 1."""
    assert embeddings is not None
    known = [part for part in seen if part in embeddings.index]
    values = embeddings.to_numpy(np.float64)
    centre = embeddings.loc[known].to_numpy(np.float64).mean(axis=0) if known else 0.0
    off = values - centre
    is_known = np.isin(embeddings.index, known)
    longest = np.linalg.norm(off[is_known], axis=1).max(initial=0.0)
    return dict(zip(embeddings.index.astype(str), off / (longest or 1.0), strict=True))
