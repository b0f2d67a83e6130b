"""Ways to break a good data set, one function a way; what each earns stands in test_checks.py."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

Breaker = Callable[[AnnData], AnnData | None]


def put(value: float, *cells: int, gene: int = 1) -> Breaker:
    """Write a value into the counts of some cells."""

    def breaker(adata: AnnData) -> None:
        counts = adata.layers["counts"].toarray().astype(np.float64)
        counts[list(cells), gene] = value
        adata.layers["counts"] = csr_matrix(counts)

    return breaker


def counts_as(make: Callable[[np.ndarray], Any]) -> Breaker:
    """Store the counts in another way."""

    def breaker(adata: AnnData) -> None:
        adata.layers["counts"] = make(adata.layers["counts"].toarray())

    return breaker


def label(column: str, value: Any, *cells: int) -> Breaker:
    """Give some cells another label."""

    def breaker(adata: AnnData) -> None:
        labels = adata.obs[column].astype(object)
        labels.iloc[list(cells)] = value
        adata.obs[column] = labels

    return breaker


def rename(column: str, old: str, new: str) -> Breaker:
    """Change a label wherever it occurs."""

    def breaker(adata: AnnData) -> None:
        adata.obs[column] = adata.obs[column].astype(object).replace({old: new})

    return breaker


def column(name: str, values: Any) -> Breaker:
    """Set a whole column (a single value: that value for all)."""

    def breaker(adata: AnnData) -> None:
        adata.obs[name] = values

    return breaker


def dose(value: Any, *cells: int) -> Breaker:
    """Add doses of 1, and another value for some cells."""

    def breaker(adata: AnnData) -> None:
        doses = pd.Series(1.0, index=adata.obs_names, dtype=object)
        doses.iloc[list(cells)] = value
        adata.obs["dose"] = doses if isinstance(value, str) else doses.astype(float)

    return breaker


def places(values: Any) -> Breaker:
    """Add coordinates."""

    def breaker(adata: AnnData) -> None:
        adata.obsm["spatial"] = values

    return breaker


def all_of(*breakers: Breaker) -> Breaker:
    """Break in several ways at once."""

    def breaker(adata: AnnData) -> AnnData:
        for one in breakers:
            changed = one(adata)
            adata = adata if changed is None else changed
        return adata

    return breaker


def drop_layer(adata: AnnData) -> None:
    del adata.layers["counts"]


def layer_is_x(adata: AnnData) -> None:
    adata.X = adata.layers.pop("counts")


def layer_misspelt(adata: AnnData) -> None:
    adata.layers["Counts"] = adata.layers.pop("counts")


def empty_cells(*cells: int) -> Breaker:
    def breaker(adata: AnnData) -> None:
        counts = adata.layers["counts"].tolil()
        counts[list(cells)] = 0
        adata.layers["counts"] = csr_matrix(counts)

    return breaker


def unseen_gene(adata: AnnData) -> None:
    counts = adata.layers["counts"].tolil()
    counts[:, 3] = 0
    adata.layers["counts"] = csr_matrix(counts)


def log_normalised(counts: np.ndarray) -> csr_matrix:
    return csr_matrix(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4))


def log_normalised_beside_raw(adata: AnnData) -> None:
    raw = adata.layers["counts"]
    adata.layers["raw"] = raw.copy()
    adata.layers["counts"] = log_normalised(raw.toarray())


def unsorted(adata: AnnData) -> None:
    counts = adata.layers["counts"]
    indices, data = counts.indices.copy(), counts.data.copy()
    first = slice(counts.indptr[0], counts.indptr[1])
    indices[first], data[first] = indices[first][::-1].copy(), data[first][::-1].copy()
    adata.layers["counts"] = csr_matrix((data, indices, counts.indptr), shape=counts.shape)


def stored_twice(adata: AnnData) -> None:
    counts = adata.layers["counts"]
    adata.layers["counts"] = csr_matrix(
        (
            np.concatenate([[1.0], counts.data]).astype(np.float32),
            np.concatenate([[0], counts.indices]),
            np.concatenate([[0], counts.indptr[1:] + 1]),
        ),
        shape=counts.shape,
    )


def index_out_of_range(adata: AnnData) -> None:
    counts = adata.layers["counts"].copy()
    counts.indices[0] = 99
    adata.layers["counts"] = counts


def same_cell_names(adata: AnnData) -> None:
    adata.obs_names = ["cell0", "cell0", *adata.obs_names[2:]]


def same_gene_names(adata: AnnData) -> None:
    adata.var_names = ["g0", "g0", "g0", *adata.var_names[3:]]


def numbered_cells(adata: AnnData) -> None:
    adata.obs.index = pd.Index(range(adata.n_obs))


def two_columns_of_one_name(adata: AnnData) -> None:
    adata.obs = pd.concat([adata.obs, adata.obs[["batch"]]], axis=1)


def no_cells(adata: AnnData) -> AnnData:
    return adata[:0].copy()


def no_genes(adata: AnnData) -> AnnData:
    return adata[:, :0].copy()


def unused_category(adata: AnnData) -> None:
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.add_categories(["NK"])


def batch_by_arm(adata: AnnData) -> None:
    arm = adata.obs["perturbation"].astype(str)
    adata.obs["batch"] = np.where(arm == "control", "b1", "b2")


def small_stratum(adata: AnnData) -> None:
    adata.obs["batch"] = ["b3"] * 3 + ["b1"] * 57


def stratum_without_control(adata: AnnData) -> AnnData:
    is_gone = (adata.obs["perturbation"] == "control") & (adata.obs["batch"] == "b2")
    return adata[~(is_gone & (adata.obs["cell_type"] == "T"))].copy()


def column_gone(adata: AnnData) -> None:
    del adata.obs["batch"]


def column_misspelt(adata: AnnData) -> None:
    adata.obs = adata.obs.rename(columns={"cell_type": "Cell type"})


def all_columns_gone(adata: AnnData) -> None:
    adata.obs = adata.obs[[]]


def normalised(counts: np.ndarray) -> csr_matrix:
    return csr_matrix(counts / counts.sum(axis=1, keepdims=True))


def scaled(counts: np.ndarray) -> np.ndarray:
    return np.asarray((counts - counts.mean(axis=0)) / counts.std(axis=0))


def everything(adata: AnnData) -> None:
    """Break nine things that do not hide one another."""
    for breaker in (
        put(np.nan, 1),
        put(-1, 2, gene=2),
        put(0.5, 3, gene=3),
        empty_cells(4),
        same_gene_names,
        label("batch", None, 5),
        rename("perturbation", "control", "ctrl"),
        dose(-3.0, 6),
        places(np.zeros((60, 5))),
    ):
        breaker(adata)
