"""Training and validation cells out of the prepared ones."""

from pathlib import Path

import numpy as np
from anndata import AnnData

from cfmvc.data.cell_ids import CELL_ID
from cfmvc.data.dataset import CellTable
from cfmvc.data.embeddings import EMBEDDINGS, expect_covered, find_embeddings
from cfmvc.data.prepared import load_prepared
from cfmvc.data.vocabulary import Vocabulary
from cfmvc.stages.vae import TrainingCells


def load_training_cells(path: Path, max_counts_gib: float) -> TrainingCells:
    """Read training and validation cells; test cells are not passed on.

    Counts of more than ``max_counts_gib`` stay on disk.
    """
    return training_cells(load_prepared(path, max_counts_gib))


def training_cells(cells: AnnData) -> TrainingCells:
    """Split canonical cells by ``obs["split"]``; labels of the test cells stay known.

    Held-out perturbations must have been seen elsewhere or have embeddings, so that the vocabulary
    of all cells is that of the training cells too; batches and cell types have controls there.
    """
    split = cells.obs["split"].astype(str).to_numpy()
    seen = cells.obs[split != "test"]
    settings = cells.uns.get("cfmvc", {})
    control, separator = (
        str(settings.get(key, value)) for key, value in (("control", "control"), ("separator", "+"))
    )
    embeddings = find_embeddings(cells, EMBEDDINGS, "perturbation")
    if embeddings is not None:
        expect_covered(embeddings, seen["perturbation"].unique(), separator, control)
    vocabulary = Vocabulary.of(
        seen["perturbation"],
        seen["batch"],
        seen["cell_type"],
        control,
        separator,
        () if embeddings is None else embeddings.index,
    )
    rows = [np.flatnonzero(split == part) for part in ("train", "val")]
    tables = [CellTable.from_adata(cells, vocabulary, rows=some) for some in rows]
    genes = [str(name) for name in cells.var_names]
    ids = np.unique(seen[CELL_ID].to_numpy()) if CELL_ID in seen else None
    return TrainingCells(tables[0], tables[1], vocabulary, genes, ids, embeddings)
