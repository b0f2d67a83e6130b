"""What every baseline may look at: the cells that were not held out, in log space."""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TypeVar
from weakref import WeakValueDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from cfmvc.errors import DataError
from cfmvc.evaluation.conditions import Condition, Rows, Stratum, Treatment

KeyT = TypeVar("KeyT")
Array = NDArray[np.float64]
_MOST_DENSE = 10_000  # cells: enough to know a population by, and gigabytes no whole screen fits in


class Reference:
    """Cells outside the test split, by condition.

    Parameters
    ----------
    logged
        Log space, CSR, shape ``(n_cells, n_genes)``; rows of test cells may be there but no
        ``rows`` points at them.
    rows
        Row numbers of each condition outside the test split, controls included.
    control
        Label of the unperturbed cells.
    separator
        Joins the parts of a combination.
    embeddings
        A vector a perturbation, the labels as index, also of those that were held out; or None.
    """

    def __init__(
        self,
        logged: sparse.csr_matrix,
        rows: dict[Condition, Rows],
        control: str,
        separator: str,
        embeddings: pd.DataFrame | None = None,
    ) -> None:
        self._logged, self.embeddings = logged, embeddings
        self._held: WeakValueDictionary[Stratum, Array] = WeakValueDictionary()
        self.separator = separator
        self._controls = {
            condition.stratum: found
            for condition, found in rows.items()
            if condition.treatment.perturbation == control
        }
        self._perturbed = {
            condition: found
            for condition, found in rows.items()
            if condition.treatment.perturbation != control
        }

    @property
    def strata(self) -> list[Stratum]:
        """The strata that have real controls, sorted."""
        return sorted(self._controls)

    def controls(self, stratum: Stratum) -> Array:
        """Return the real controls of a stratum, dense.

        Raises
        ------
        DataError
            If there are none.
        """
        if stratum not in self._controls:
            raise DataError(f"stratum '{stratum}': no real control outside the test split")
        # Many conditions of a stratum are looked at together: they share one array.
        held = self._held.get(stratum)
        if held is None:
            held = self._logged[self._controls[stratum]].toarray()
            held.flags.writeable = False
            self._held[stratum] = held
        return held

    def control_rows(self, stratum: Stratum) -> Rows:
        """Return which rows of all cells the real controls of a stratum are, in their order."""
        return self._controls[stratum]

    def n_controls(self, stratum: Stratum) -> int:
        """Return how many real controls a stratum has."""
        return len(self._controls[stratum])

    def n_cells(self, conditions: list[Condition]) -> int:
        """Return how many cells the conditions have."""
        return sum(len(self._perturbed[c]) for c in conditions)

    def cells(self, conditions: list[Condition]) -> Array:
        """Return the cells of the conditions, dense, one population after the other.

        Of very many cells some, each as likely, and always the same ones.
        """
        rows = np.concatenate([self._perturbed[c] for c in conditions])
        if len(rows) > _MOST_DENSE:
            drawn = np.random.default_rng(0).choice(len(rows), _MOST_DENSE, replace=False)
            rows = rows[np.sort(drawn)]
        return self._logged[rows].toarray()

    @cached_property
    def control_means(self) -> dict[Stratum, Array]:
        """Mean of the real controls of each stratum, shape ``(n_genes,)``."""
        return {stratum: _mean(self._logged, rows) for stratum, rows in self._controls.items()}

    @cached_property
    def deltas(self) -> dict[Condition, Array]:
        """Mean shift of each perturbed condition whose stratum has controls."""
        return {
            condition: _mean(self._logged, rows) - self.control_means[condition.stratum]
            for condition, rows in self._perturbed.items()
            if condition.stratum in self._controls
        }

    def knows(self, perturbation: str) -> bool:
        """Return whether a perturbation, at whatever dose, has cells outside the test."""
        return any(c.treatment.perturbation == perturbation for c in self._perturbed)

    def seen(self, treatment: Treatment) -> list[Condition]:
        """Return the treatment's conditions that have a delta."""
        return self._by_treatment.get(treatment, [])

    @cached_property
    def _by_treatment(self) -> dict[Treatment, list[Condition]]:
        return _grouped(self.deltas, lambda condition: condition.treatment)

    @cached_property
    def _by_perturbation(self) -> dict[str, list[Condition]]:
        return _grouped(self.deltas, lambda condition: condition.treatment.perturbation)

    def elsewhere(self, treatment: Treatment, stratum: Stratum) -> list[Condition]:
        """Return the treatment's conditions in other strata: of the same cell type if there are."""
        found = [c for c in self.seen(treatment) if c.stratum != stratum]
        return [c for c in found if c.stratum.cell_type == stratum.cell_type] or found

    def nearest(self, treatment: Treatment, stratum: Stratum) -> tuple[list[Condition], str]:
        """Return where the treatment, or what is nearest to it, was seen, and a note if it differs.

        The treatment in other strata; else its own cells of this stratum (a random split leaves
        some in training); else the same perturbation at the nearest dose, in strata of this cell
        type where there are any, this stratum among them.
        """
        if found := self.elsewhere(treatment, stratum):
            return found, ""
        own = Condition(treatment, stratum)
        if own in self.deltas:
            return [own], "own stratum, seen nowhere else"
        like = self._like(treatment)
        like = [c for c in like if c.stratum.cell_type == stratum.cell_type] or like
        replaced = _nearest_dose(like, treatment)
        if replaced is None:
            return [], ""
        found = [c for c in like if c.treatment == replaced]
        return found, f"'{replaced}' instead of '{treatment}'"

    def of_part(self, part: Treatment, stratum: Stratum) -> tuple[list[Condition], str]:
        """Return where a part of a combination was seen alone, and a note as :meth:`nearest` does.

        In strata of this cell type where there are any, this stratum among them: of a combination
        that is held out the parts are not.
        """
        found = [c for c in self.seen(part) if c.stratum.cell_type == stratum.cell_type]
        return (found, "") if found else self.nearest(part, stratum)

    def _like(self, treatment: Treatment) -> list[Condition]:
        """Return the conditions of the treatment's perturbation, at whatever dose."""
        return self._by_perturbation.get(treatment.perturbation, [])


def _grouped(
    conditions: Iterable[Condition], key: Callable[[Condition], KeyT]
) -> dict[KeyT, list[Condition]]:
    found: dict[KeyT, list[Condition]] = {}
    for condition in conditions:
        found.setdefault(key(condition), []).append(condition)
    return found


def _nearest_dose(conditions: list[Condition], wanted: Treatment) -> Treatment | None:
    """Return the treatment whose dose is nearest to the one that is wanted; None without doses."""
    asked = wanted.dose
    doses = sorted({c.treatment.dose for c in conditions if c.treatment.dose is not None})
    if asked is None or not doses:
        return None
    return wanted._replace(dose=min(doses, key=lambda dose: abs(dose - asked)))


def _mean(logged: sparse.csr_matrix, rows: Rows) -> Array:
    # dense, as the metrics add up: the mean of the controls is then the same to the bit
    return logged[rows].toarray().mean(axis=0)
