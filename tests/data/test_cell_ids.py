"""A cell is known again by its counts alone."""

import anndata as ad
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from cfmvc.data.cell_ids import cell_ids


def cells_of(counts: np.ndarray, genes: list[str] | None = None) -> ad.AnnData:
    names = genes or [f"g{n}" for n in range(counts.shape[1])]
    return ad.AnnData(
        var=pd.DataFrame(index=names), layers={"counts": csr_matrix(counts.astype(np.float32))}
    )


def test_order_of_genes_and_of_cells_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, size=(50, 20))
    ids = cell_ids(cells_of(counts))
    assert len(set(ids)) == 50
    order = rng.permutation(20)
    turned = cells_of(counts[::-1, order], [f"g{n}" for n in order])
    assert cell_ids(turned).tolist() == ids[::-1].tolist()


def test_any_other_count_or_gene_is_another_cell() -> None:
    counts = np.array([[0, 2, 1, 0]])
    own = cell_ids(cells_of(counts))[0]
    for other in ([[0, 1, 2, 0]], [[2, 0, 1, 0]], [[0, 2, 1, 1]], [[0, 4, 1, 0]], [[0, 2, 0, 0]]):
        assert cell_ids(cells_of(np.array(other)))[0] != own
    assert cell_ids(cells_of(counts, ["a", "b", "c", "d"]))[0] != own


def test_zeros_that_are_stored_are_zeros() -> None:
    cells = cells_of(np.array([[0, 2, 1]]))
    stored = cells.copy()
    stored.layers["counts"] = csr_matrix(
        (np.array([0.0, 2.0, 1.0], np.float32), np.array([0, 1, 2]), np.array([0, 3])), shape=(1, 3)
    )
    assert cell_ids(stored).tolist() == cell_ids(cells).tolist()


def test_no_two_of_many_sparse_cells_share_a_hash() -> None:
    counts = np.unique(np.random.default_rng(1).poisson(0.3, size=(20_000, 30)), axis=0)
    assert len(set(cell_ids(cells_of(counts)))) == len(counts)
