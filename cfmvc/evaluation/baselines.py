"""Simple predictions that a model has to beat, and the one table that declares them.

Each looks at cells outside the test split only and returns log-space cells for a condition. Where
its recipe does not apply, it falls back to a simpler one and says so in ``note``: a condition is
never dropped.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cfmvc.data.vocabulary import split_label
from cfmvc.evaluation.conditions import Condition, Stratum, Treatment
from cfmvc.evaluation.embedded_shift import EmbeddedShift
from cfmvc.evaluation.reference import Reference
from cfmvc.evaluation.ridge import RidgeShift

Array = NDArray[np.float64]
_LEAST = 2  # cells that make a population: one has no spread, and no distance from another


class Prediction(NamedTuple):
    """Predicted cells, and what was out of the ordinary.

    Parameters
    ----------
    cells
        Log space, shape ``(n_cells, n_genes)``.
    note
        In words.
    origin
        Number of what each cell was made of, from 0, shape ``(n_cells,)``; None: each of something
        else.
    of_controls
        Whether it was made of the stratum's real controls, of which these are the row numbers:
        other controls would have given other cells.
    """

    cells: Array
    note: str = ""
    origin: NDArray[np.int64] | None = None
    of_controls: bool = False


def moved_controls(controls: Array, shift: Array | float = 0.0, note: str = "") -> Prediction:
    """Return a stratum's real controls, all moved alike."""
    return Prediction(controls + shift, note, np.arange(len(controls)), of_controls=True)


class Baseline(Protocol):
    """Built from the reference cells, asked for conditions."""

    def __init__(self, reference: Reference) -> None: ...

    def predict(self, condition: Condition) -> Prediction:
        """Predict the cells of a condition."""
        ...


class Control:
    """Nothing happens: all real controls of the stratum."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def predict(self, condition: Condition) -> Prediction:
        """Return the controls as they are."""
        return moved_controls(self._reference.controls(condition.stratum))


class PerturbedMean:
    """The perturbed cells of other strata, of the same cell type where there are any, pooled.

    Of an unseen dose those at the nearest one, the stratum's own among them. Of more than 10,000 as
    many are drawn.
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def predict(self, condition: Condition) -> Prediction:
        """Return the cells of the treatment or the nearest dose, or else all perturbed ones."""
        found, note = self._reference.nearest(*condition)
        n_cells = self._reference.n_cells(found)
        if n_cells >= _LEAST:
            return Prediction(self._reference.cells(found), note)
        every = list(self._reference.deltas)
        if self._reference.n_cells(every) < _LEAST:
            controls = self._reference.controls(condition.stratum)
            return moved_controls(controls, note="no perturbed cells seen; control")
        seen = f"seen in {n_cells} cell" if n_cells else "not seen"
        near = [c for c in every if c.stratum == condition.stratum]
        if self._reference.n_cells(near) < _LEAST:
            near = every
        return Prediction(
            self._reference.cells(near), f"'{condition.treatment}' {seen}; all perturbed cells"
        )


class Additive:
    """Real controls plus the mean delta of the same treatment in other strata.

    The other strata are those of the same cell type where there are any; each weighs the same.
    Of what was seen nowhere else the stratum's own delta serves, and then the nearest dose, the
    stratum's own among others. A combination that was never seen gets the sum of the deltas of its
    parts, as far as these were, the stratum's own among them. The shift is added in log space,
    without clipping.
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def predict(self, condition: Condition) -> Prediction:
        """Return the shifted controls."""
        shift, note = self._shift(*condition)
        return moved_controls(self._reference.controls(condition.stratum), shift, note)

    def _shift(self, treatment: Treatment, stratum: Stratum) -> tuple[Array, str]:
        found, note = self._reference.nearest(treatment, stratum)
        if found:
            return self._mean(found), note
        parts = split_label(treatment.perturbation, self._reference.separator)
        seen = {
            part: self._reference.of_part(Treatment(part, treatment.dose), stratum)
            for part in parts
        }
        unseen = ", ".join(f"'{part}'" for part, (found, _) in seen.items() if not found)
        shifts = [self._mean(found) for found, _ in seen.values() if found]
        if not shifts:
            nothing = np.zeros_like(self._reference.control_means[stratum])
            return nothing, f"{unseen} not seen; control"
        notes = ["sum of its parts" + (f" without {unseen}, not seen" if unseen else "")]
        notes += [note for _, note in seen.values() if note]
        return np.sum(shifts, axis=0), "; ".join(notes)

    def _mean(self, conditions: list[Condition]) -> Array:
        return np.mean([self._reference.deltas[c] for c in conditions], axis=0)


class Ridge:
    """Real controls plus a shift from a ridge regression, see :class:`RidgeShift`."""

    _shift: type[RidgeShift] | type[EmbeddedShift] = RidgeShift

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._regression = self._shift(reference) if reference.deltas else None

    def predict(self, condition: Condition) -> Prediction:
        """Return the shifted controls."""
        controls = self._reference.controls(condition.stratum)
        if self._regression is None:
            return moved_controls(controls, note="no perturbed cell seen; control")
        return moved_controls(controls, *self._regression.predict(condition))


class EmbeddingRidge(Ridge):
    """Real controls plus a shift regressed on embeddings, see :class:`EmbeddedShift`."""

    _shift: type[RidgeShift] | type[EmbeddedShift] = EmbeddedShift


class NearestPerturbation:
    """The stratum's own cells of the treatment that acts most alike elsewhere.

    Alike are treatments whose deltas are near (Euclidean, averaged over the strata in which both
    were seen).
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._instead = PerturbedMean(reference)

    def predict(self, condition: Condition) -> Prediction:
        """Return the cells of the nearest treatment, or else what the perturbed mean predicts."""
        distances = {
            other: distance
            for other in self._reference.deltas
            if other.stratum == condition.stratum
            and other.treatment != condition.treatment
            and self._reference.n_cells([other]) >= _LEAST
            and (distance := self._distance(condition.treatment, other.treatment)) is not None
        }
        if distances:
            return Prediction(self._reference.cells([min(distances, key=lambda o: distances[o])]))
        instead = self._instead.predict(condition)
        return instead._replace(note="no other perturbation to choose; perturbed mean")

    def _distance(self, one: Treatment, other: Treatment) -> float | None:
        deltas = self._reference.deltas
        shared = [
            np.linalg.norm(deltas[condition] - deltas[Condition(other, condition.stratum)])
            for condition in self._reference.seen(one)
            if Condition(other, condition.stratum) in deltas
        ]
        return float(np.mean(shared)) if shared else None


def baselines_of(reference: Reference) -> dict[str, Baseline]:
    """Return every baseline of a reference, by name."""
    found = {name: baseline(reference) for name, baseline in BASELINES.items()}
    if reference.embeddings is None:
        return found
    return {**found, EMBEDDING_RIDGE: EmbeddingRidge(reference)}


EMBEDDING_RIDGE = "embedding_ridge"  # where perturbations have embeddings, beside the others
BASELINES: dict[str, type[Baseline]] = {
    "control": Control,
    "perturbed_mean": PerturbedMean,
    "additive": Additive,
    "ridge": Ridge,
    "nearest_perturbation": NearestPerturbation,
}
