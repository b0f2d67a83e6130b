"""A tissue of which some cells are replaced by what they would be: counts, change, labels."""

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack

_ROWS = 1024  # cells whose change is made sparse at a time


def with_changes(
    cells: AnnData,
    counts: csr_matrix,
    carried: AnnData,
    rows: np.ndarray,
    position: np.ndarray,
) -> AnnData:
    """Return all cells, those of ``rows`` replaced, with the change of each gene and cell.

    Parameters
    ----------
    cells
        All cells.
    counts
        Their counts, ``(n_cells, n_genes)``.
    carried
        The changed cells, with ``layers["counts"]`` and ``layers["change"]`` of the model's genes.
    rows
        Which cells they are.
    position
        Where the model's genes are among the cells'.

    Returns
    -------
    AnnData
        As in :class:`~cfmvc.stages.region.RegionChange`, without ``in_region`` and new labels.
    """
    change, sizes, total = _changes(carried.layers["change"])
    before = counts[rows]
    is_predicted = np.zeros(cells.n_vars, dtype=bool)
    is_predicted[position] = True
    before.data[is_predicted[before.indices]] = 0
    after = before + _spread(carried.layers["counts"], position, cells.n_vars).astype(np.float32)
    after.eliminate_zeros()
    where = np.arange(cells.n_obs)
    where[rows] = cells.n_obs + np.arange(len(rows))
    changed = AnnData(
        obs=cells.obs.copy(),
        var=cells.var.copy(),
        layers={"counts": vstack([counts, after], format="csr")[where]},
        obsm={"spatial": np.array(cells.obsm["spatial"])},
        uns=dict(cells.uns),
    )
    nothing = csr_matrix((cells.n_obs, cells.n_vars), dtype=np.float32)
    spread = _spread(change, position, cells.n_vars)
    changed.layers["change"] = vstack([nothing, spread], format="csr")[where]
    changed.obs["change"] = np.zeros(cells.n_obs, dtype=np.float32)
    changed.obs.iloc[rows, changed.obs.columns.get_loc("change")] = sizes
    changed.var["is_predicted"] = is_predicted
    changed.var["mean_change"] = np.zeros(cells.n_vars, dtype=np.float32)
    changed.var.iloc[position, changed.var.columns.get_loc("mean_change")] = total / len(rows)
    return changed


def _changes(dense: np.ndarray) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    """Return the change of each gene, its length a cell, and its sum a gene."""
    blocks, sizes = [], []
    total = np.zeros(dense.shape[1], dtype=np.float64)
    for start in range(0, len(dense), _ROWS):
        some = dense[start : start + _ROWS]
        total += some.sum(axis=0, dtype=np.float64)
        sizes.append(np.linalg.norm(some, axis=1))
        blocks.append(csr_matrix(some))
    return vstack(blocks, format="csr"), np.concatenate(sizes), total.astype(np.float32)


def _spread(matrix: csr_matrix, position: np.ndarray, n_genes: int) -> csr_matrix:
    """Return the matrix with its columns at their positions among more genes."""
    columns = position[matrix.indices]
    spread = csr_matrix((matrix.data, columns, matrix.indptr), shape=(matrix.shape[0], n_genes))
    spread.sort_indices()
    return spread


def label_changed(
    cells: AnnData, control: str, perturbation: str, dose: float | None, is_changed: np.ndarray
) -> None:
    """Give changed cells the perturbation's label and dose: they are controls no longer.

    A column ``dose`` is added where one was given, and unperturbed cells have dose 0.
    """
    text = cells.obs["perturbation"].astype(str).to_numpy(dtype=object)
    text[is_changed] = perturbation
    cells.obs["perturbation"] = pd.Categorical(text)
    if "dose" not in cells.obs and dose is None:
        return
    is_control = text == control
    known = cells.obs["dose"] if "dose" in cells.obs else np.where(is_control, 0.0, 1.0)
    given = 1.0 if dose is None else dose
    cells.obs["dose"] = np.where(is_changed & ~is_control, given, known)
