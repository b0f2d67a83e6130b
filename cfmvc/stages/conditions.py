"""The table of conditions that virtual cells are asked for."""

import re

import numpy as np
import pandas as pd

from cfmvc.data.labels import has_empty_part
from cfmvc.errors import DataError, listed

LABELS = ("perturbation", "batch", "cell_type")
_LIKE_A_DOSE = re.compile(r"(dose|doses|dosage)([^a-z]|$)")
_MOST_CELLS = 10_000_000  # of a condition
REQUIRED = (*LABELS, "n_cells")


def check_conditions(conditions: pd.DataFrame, separator: str = "") -> pd.DataFrame:
    """Return the table of conditions with clean types, or name every fault in it.

    Parameters
    ----------
    conditions
        Columns ``perturbation, batch, cell_type, n_cells`` and optionally ``dose``.
    separator
        What joins the parts of a combination; empty: nothing does.

    Raises
    ------
    DataError
        If columns are missing, labels are empty, or numbers of cells are not positive integers.
    """
    missing = [name for name in REQUIRED if name not in conditions]
    if missing:
        raise DataError(
            f"conditions: no column {listed(missing)}; needed: {listed(REQUIRED)}, optional 'dose'"
        )
    if conditions.empty:
        raise DataError("conditions: no rows; one row is one condition")
    clean = conditions.reset_index(drop=True).copy()
    faults = [
        f"column '{name}': is not read; a dose has the column 'dose'"
        for name in clean
        if "dose" not in clean and _LIKE_A_DOSE.match(str(name).strip().lower())
    ]
    for name in LABELS:
        empty = clean[name].isna() | (clean[name].astype(str).str.strip() == "")
        if empty.any():
            faults.append(f"{name}: empty in row {int(np.flatnonzero(empty)[0]) + 1}")
        clean[name] = clean[name].astype(str).str.strip()
    if separator:
        broken = [has_empty_part(label, separator) for label in clean["perturbation"]]
        if any(broken):
            row = int(np.argmax(broken))
            label = clean["perturbation"][row]
            faults.append(f"perturbation: '{label}' has an empty part (row {row + 1})")
    counts = pd.to_numeric(clean["n_cells"], errors="coerce")
    bad = ~((counts >= 1) & (counts == np.floor(counts)) & (counts <= _MOST_CELLS))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        faults.append(
            f"n_cells: must be a positive integer, {_MOST_CELLS:,} at most "
            f"(row {row + 1}: {clean['n_cells'][row]})"
        )
    if "dose" in clean:
        clean["dose"], bad_rows = _doses(clean["dose"])
        faults += [f"dose: not a number (row {row + 1})" for row in bad_rows]
    if faults:
        raise DataError("\n".join(f"conditions: {fault}" for fault in faults))
    clean["n_cells"] = counts.astype(int)
    return clean


def labels_of(conditions: pd.DataFrame) -> list[str]:
    """Return each condition in one line, for events and messages."""
    columns = [
        name for name in ("perturbation", "dose", "batch", "cell_type") if name in conditions
    ]
    return conditions[columns].astype(str).agg(" | ".join, axis=1).tolist()


def _doses(column: pd.Series) -> tuple[pd.Series, list[int]]:
    """Return doses as numbers, NaN where the field is empty; and the rows of other text.

    A number stays the number that it is: conditions are told apart by it.
    """
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.astype(np.float64), []
    text = column.astype(str).str.strip()
    doses = text.map(_number)
    is_empty = column.isna() | text.str.lower().isin(["", "nan"])
    return doses, np.flatnonzero(doses.isna() & ~is_empty).tolist()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
