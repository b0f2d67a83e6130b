"""The prepared file: canonical cells with their split, as every later stage reads it."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from cfmvc.data.reading import is_on_disk, open_cells

# Controls of a stratum whose mean says what strata differ in, and from which a shift can be scored.
LEAST_CONTROLS = 5
_CONDITION = ("perturbation", "dose", "batch", "cell_type")


def load_prepared(path: Path, most_gib: float = math.inf) -> AnnData:
    """Read the prepared cells, counts as float32 CSR.

    Parameters
    ----------
    path
        What ``prepare`` has made.
    most_gib
        Counts that would need more than this in memory stay on disk.
    """
    cells = open_cells(path, most_gib * 2**30)
    if not is_on_disk(cells.layers["counts"]):
        cells.layers["counts"] = csr_matrix(cells.layers["counts"], dtype=np.float32)
    return cells


def control_of(cells: AnnData) -> str:
    """Return the label of the unperturbed cells."""
    return str(cells.uns["cfmvc"]["control"])


def separator_of(cells: AnnData) -> str:
    """Return what joins the parts of a combination."""
    return str(cells.uns["cfmvc"]["separator"])


def held_out_conditions(obs: pd.DataFrame, control: str) -> pd.DataFrame:
    """Return the conditions of the test cells that can be asked for, one row each, sorted.

    Those of strata without a control cell outside the test cannot: nothing is there to start from,
    nor to compare with. The evaluation lists them as not scored.
    """
    is_test = (obs["split"].astype(str) == "test").to_numpy()
    strata = pd.MultiIndex.from_frame(obs[["batch", "cell_type"]].astype(str))
    is_control = (obs["perturbation"].astype(str) == control).to_numpy()
    test = obs[is_test & ~is_control & strata.isin(strata[is_control & ~is_test])]
    columns = [name for name in _CONDITION if name in test]
    conditions = test[columns].drop_duplicates().sort_values(columns).reset_index(drop=True)
    for name in columns:
        if name != "dose":
            conditions[name] = conditions[name].astype(str)
    return conditions


def in_whole_rounds(
    conditions: pd.DataFrame, obs: pd.DataFrame, control: str, n_cells: int, most: int = 0
) -> pd.DataFrame:
    """Return the conditions with ``n_cells``, so that each control cell serves equally often.

    A virtual cell is made of a control cell. If some of them served once and others twice, the
    mean of the virtual cells would carry the noise of that choice.

    Parameters
    ----------
    conditions
        From :func:`held_out_conditions`.
    obs
        All cells, with ``split``.
    control
        Label of the unperturbed cells.
    n_cells
        At least so many cells of each condition; exactly so many where the stratum has more
        controls than that, and ``most`` does not allow more cells.
    most
        Of all conditions together; if these are no more when each control of a large stratum serves
        once, it does.
    """
    usable = (obs["perturbation"].astype(str) == control) & (obs["split"].astype(str) != "test")
    strata = obs.loc[usable, ["batch", "cell_type"]].astype(str)
    n_controls = strata.value_counts()
    there = [
        int(n_controls[stratum])
        for stratum in conditions[["batch", "cell_type"]].itertuples(index=False, name=None)
    ]
    wanted = [n_cells if n >= n_cells else -(-n_cells // n) * n for n in there]
    whole = [max(pair) for pair in zip(wanted, there, strict=True)]
    return conditions.assign(n_cells=whole if sum(whole) <= most else wanted)
