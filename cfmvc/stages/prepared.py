"""The prepared file: canonical cells with their split, as the stages read it."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from cfmvc.data.dataset import CellTable
from cfmvc.data.vocabulary import Vocabulary
from cfmvc.stages.vae import TrainingCells

_CONDITION = ("perturbation", "dose", "batch", "cell_type")


def load_prepared(path: Path) -> AnnData:
    """Read the prepared cells, counts as float32 CSR."""
    cells = anndata.read_h5ad(path)
    cells.layers["counts"] = csr_matrix(cells.layers["counts"], dtype=np.float32)
    return cells


def load_training_cells(path: Path) -> TrainingCells:
    """Read training and validation cells; test cells are not passed on."""
    return training_cells(load_prepared(path))


def training_cells(cells: AnnData) -> TrainingCells:
    """Split canonical cells by ``obs["split"]``; labels of the test cells stay known.

    Held-out perturbations must have been seen elsewhere, so that the vocabulary of all cells is
    that of the training cells too; batches and cell types have their controls there.
    """
    split = cells.obs["split"].astype(str).to_numpy()
    seen = cells.obs[split != "test"]
    settings = cells.uns.get("cfmvc", {})
    vocabulary = Vocabulary.of(
        seen["perturbation"],
        seen["batch"],
        seen["cell_type"],
        str(settings.get("control", "control")),
        str(settings.get("separator", "+")),
    )
    tables = [CellTable.from_adata(cells[split == part], vocabulary) for part in ("train", "val")]
    genes = [str(name) for name in cells.var_names]
    return TrainingCells(tables[0], tables[1], vocabulary, genes)


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
