"""The prepared file: canonical cells with their split, as every later stage reads it."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

_CONDITION = ("perturbation", "dose", "batch", "cell_type")


def load_prepared(path: Path) -> AnnData:
    """Read the prepared cells, counts as float32 CSR."""
    cells = anndata.read_h5ad(path)
    cells.layers["counts"] = csr_matrix(cells.layers["counts"], dtype=np.float32)
    return cells


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
