"""Predicted cells: checked against what was asked for."""

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from cfmvc.data.cell_ids import CONTROL_CELL
from cfmvc.errors import DataError, listed
from cfmvc.evaluation.conditions import Condition, Rows, rows_of_conditions


def counts_of(cells: ad.AnnData, name: str) -> sparse.csr_matrix:
    """Return ``layers["counts"]`` as CSR.

    Raises
    ------
    DataError
        If it is missing, or holds negative or non-finite values.
    """
    if "counts" not in cells.layers:
        raise DataError(f"{name}: no layer 'counts'")
    counts = sparse.csr_matrix(cells.layers["counts"])
    is_bad = ~np.isfinite(counts.data) | (counts.data < 0)
    if is_bad.any():
        raise DataError(
            f"{name}: {int(is_bad.sum())} counts are negative or not finite, "
            f"for example {counts.data[is_bad][0]}"
        )
    return counts


def generated_rows(
    generated: ad.AnnData,
    cells: ad.AnnData,
    asked: list[Condition],
    control: str,
    title: str = "generated cells",
) -> dict[Condition, Rows]:
    """Return the rows of each condition that was asked for; all else, controls too, is ignored.

    Raises
    ------
    DataError
        If the genes or the columns differ, or a condition has fewer than 2 predicted cells; all
        such conditions are named.
    """
    if not generated.var_names.equals(cells.var_names):
        raise DataError(
            f"{title}: {generated.n_vars} genes that are not the {cells.n_vars} genes of "
            "the real cells in the same order"
        )
    columns = ["perturbation", "batch", "cell_type"] + (["dose"] if "dose" in cells.obs else [])
    if missing := [column for column in columns if column not in generated.obs]:
        raise DataError(f"{title}: no obs column {listed(missing)}")
    obs = (
        generated.obs if "dose" in columns else generated.obs.drop(columns="dose", errors="ignore")
    )
    found = rows_of_conditions(obs, control)
    if absent := [str(c) for c in asked if len(found.get(c, ())) < 2]:
        raise DataError(
            f"{len(absent)} of {len(asked)} held-out conditions have fewer than 2 {title}: "
            f"{listed(absent, 40)}. A condition that was asked for is never left "
            "out of the scores: generate it"
        )
    return {condition: found[condition] for condition in asked}


def controls_of(cells: ad.AnnData, real: ad.AnnData) -> NDArray[np.int64]:
    """Return which row of the real cells each cell was made of; -1: none of them, or unknown."""
    if CONTROL_CELL not in cells.obs or not real.obs_names.is_unique:
        return np.full(cells.n_obs, -1)
    return np.asarray(real.obs_names.get_indexer(cells.obs[CONTROL_CELL].astype(object)))


def origins_of(cells: ad.AnnData) -> NDArray[np.int64]:
    """Return the number of what each cell was made of, ``(n_cells,)``.

    ``obs["control_cell"]`` names it; without that column, or a name there, each cell is of its own.
    """
    if CONTROL_CELL not in cells.obs:
        return np.arange(cells.n_obs)
    numbers, names = pd.factorize(cells.obs[CONTROL_CELL].astype(object), sort=True)
    is_alone = numbers < 0  # made of none
    numbers[is_alone] = len(names) + np.arange(is_alone.sum())
    return numbers
