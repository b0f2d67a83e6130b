"""Conditions and strata, and the rows of a data set that belong to each."""

from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray


class Stratum(NamedTuple):
    """Cells that share everything but the perturbation."""

    batch: str
    cell_type: str

    def __str__(self) -> str:
        # Two strata never read alike, whatever their labels hold: tables are indexed by this.
        quoted = [repr(name) if ", " in name else name for name in self]
        return ", ".join(quoted)


class Treatment(NamedTuple):
    """What was done to the cells; ``dose`` is None where the data have none."""

    perturbation: str
    dose: float | None

    def __str__(self) -> str:
        return self.perturbation if self.dose is None else f"{self.perturbation} at {self.dose:g}"


class Condition(NamedTuple):
    """A treatment in a stratum."""

    treatment: Treatment
    stratum: Stratum

    def __str__(self) -> str:
        return f"{self.treatment} ({self.stratum})"


Rows = NDArray[np.int64]


def rows_of_conditions(
    obs: pd.DataFrame, control: str, rows: NDArray[np.bool_] | None = None
) -> dict[Condition, Rows]:
    """Return the row numbers of each condition, in sorted order; a control has no dose.

    Parameters
    ----------
    obs
        Columns ``perturbation``, ``batch``, ``cell_type`` and, optionally, ``dose``.
    control
        Label of the unperturbed cells.
    rows
        Which rows count; all by default.
    """
    table = pd.DataFrame({name: obs[name].astype(str).to_numpy() for name in _LABELS})
    dose = obs["dose"].to_numpy(dtype=np.float64) if "dose" in obs else np.full(len(obs), np.nan)
    # NaN never equals itself, so the missing dose is -1 while rows are grouped
    is_dosed = (table["perturbation"] != control).to_numpy() & np.isfinite(dose)
    table["dose"] = np.where(is_dosed, dose, -1.0)
    if rows is not None:
        table = table[rows]
    found: dict[Condition, Rows] = {}
    grouped = table.groupby(["perturbation", "dose", "batch", "cell_type"], sort=True)
    for key, group in grouped:
        perturbation, dose_, batch, cell_type = cast(tuple[str, float, str, str], key)
        treatment = Treatment(perturbation, None if dose_ < 0 else dose_)
        found[Condition(treatment, Stratum(batch, cell_type))] = group.index.to_numpy(np.int64)
    return found


_LABELS = ("perturbation", "batch", "cell_type")
