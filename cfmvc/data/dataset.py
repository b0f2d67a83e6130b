"""Cells for the training: one table of a data set, and the units that the model is fed with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix
from torch.utils.data import Dataset

from cfmvc.data.count_terms import CountTerms
from cfmvc.data.on_disk import CountsOnDisk, float_counts
from cfmvc.data.vocabulary import Vocabulary
from cfmvc.errors import DataError, listed, suggest


@dataclass(frozen=True)
class Cells:
    """Some cells, ready for the model; all tensors on one device.

    Parameters
    ----------
    x
        Raw counts, ``(B, G)`` float32.
    p
        Perturbation vectors, ``(B, K)`` float32; zero for control cells.
    batch, cell_type
        Column numbers, ``(B,)`` int64.
    spatial
        Coordinates, ``(B, 2 or 3)``, or None.
    terms
        The tally of the counts, where it was made on the way; it vouches that they are whole and
        not below 0.
    """

    x: torch.Tensor
    p: torch.Tensor
    batch: torch.Tensor
    cell_type: torch.Tensor
    spatial: torch.Tensor | None = None
    terms: CountTerms | None = None

    def __len__(self) -> int:
        return len(self.batch)

    def part(self, rows: slice) -> "Cells":
        """Return some of the cells, without the tally."""
        spatial = None if self.spatial is None else self.spatial[rows]
        return Cells(self.x[rows], self.p[rows], self.batch[rows], self.cell_type[rows], spatial)

    @classmethod
    def from_mapping(cls, cells: Mapping[str, Any], device: torch.device) -> "Cells":
        """Take the keys ``x, p, batch, cell_type, spatial`` of a collated batch."""
        spatial = cells.get("spatial")
        return cls(
            cells["x"].to(device),
            cells["p"].to(device),
            cells["batch"].to(device),
            cells["cell_type"].to(device),
            None if spatial is None else spatial.to(device),
        )


@dataclass(frozen=True)
class CellTable:
    """A data set as arrays: counts stay sparse on the host, a step's cells become dense.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)`` float32 CSR, in memory or on disk.
    conditions
        The distinct perturbation vectors, ``(n_vectors, K)`` float32.
    condition
        Row of ``conditions`` of each cell, ``(n_cells,)`` int64.
    batch, cell_type
        ``(n_cells,)`` int64.
    spatial
        ``(n_cells, 2 or 3)`` float32 or None.
    """

    counts: csr_matrix | CountsOnDisk
    conditions: np.ndarray
    condition: np.ndarray
    batch: np.ndarray
    cell_type: np.ndarray
    spatial: np.ndarray | None = None

    @classmethod
    def from_adata(
        cls,
        adata: AnnData,
        vocabulary: Vocabulary,
        layer: str = "counts",
        rows: np.ndarray | None = None,
    ) -> "CellTable":
        """Read a canonical AnnData (columns ``perturbation, batch, cell_type[, dose]``).

        Parameters
        ----------
        adata
            The cells.
        vocabulary
            Labels and their columns.
        layer
            Where the counts are.
        rows
            Of these cells; of all if not given.
        """
        obs = adata.obs if rows is None else adata.obs.iloc[rows]
        conditions, condition = _conditions_of(obs, vocabulary)
        spatial = adata.obsm.get("spatial")
        if spatial is not None and rows is not None:
            spatial = np.asarray(spatial)[rows]
        return cls(
            float_counts(adata.layers[layer], rows),
            conditions,
            condition,
            vocabulary.batch_codes(obs["batch"].astype(str).to_numpy()),
            vocabulary.cell_type_codes(obs["cell_type"].astype(str).to_numpy()),
            None if spatial is None else np.asarray(spatial, dtype=np.float32),
        )

    def __len__(self) -> int:
        return int(self.counts.shape[0])

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return int(self.counts.shape[1])

    @property
    def library(self) -> np.ndarray:
        """Total counts of each cell, ``(n_cells,)`` float32."""
        return np.asarray(self.counts.sum(axis=1), dtype=np.float32).reshape(-1)

    @property
    def mean_counts(self) -> np.ndarray:
        """Mean count of each gene, ``(n_genes,)``."""
        return np.asarray(self.counts.mean(axis=0)).reshape(-1)

    @property
    def is_on_disk(self) -> bool:
        """Whether the counts are read when they are needed."""
        return isinstance(self.counts, CountsOnDisk)

    def subset(self, rows: np.ndarray) -> "CellTable":
        """Return the table of some rows (indices or a boolean mask), in memory."""
        return CellTable(
            self.counts[rows],
            self.conditions,
            self.condition[rows],
            self.batch[rows],
            self.cell_type[rows],
            None if self.spatial is None else self.spatial[rows],
        )

    def rows(self, rows: np.ndarray | slice) -> csr_matrix:
        """Return the counts of some cells; a slice of what is in memory is not copied."""
        counts = self.counts
        if not isinstance(counts, csr_matrix) or not isinstance(rows, slice):
            return counts[rows]
        start, stop, step = rows.indices(len(self))
        if step != 1 or stop <= start:
            return counts[rows]
        first, last = counts.indptr[start], counts.indptr[stop]
        return csr_matrix(
            (
                counts.data[first:last],
                counts.indices[first:last],
                counts.indptr[start : stop + 1] - first,
            ),
            (stop - start, self.n_genes),
        )

    def cells(
        self, rows: np.ndarray | slice, device: torch.device, with_terms: bool = False
    ) -> Cells:
        """Gather rows as dense tensors on ``device``, on demand with the tally of their counts."""
        counts = self.rows(rows)
        spatial = None if self.spatial is None else torch.from_numpy(self.spatial[rows]).to(device)
        return Cells(
            torch.from_numpy(counts.toarray()).to(device),
            torch.from_numpy(self.conditions[self.condition[rows]]).to(device),
            torch.from_numpy(self.batch[rows]).to(device),
            torch.from_numpy(self.cell_type[rows]).to(device),
            spatial,
            CountTerms.of_sparse(counts, device) if with_terms else None,
        )


class SingleCellDataset(Dataset[dict[str, Any]]):
    """The cells of an AnnData, one by one, for a PyTorch ``DataLoader``.

    The engine does not go through single cells; this door is for code that does.

    Parameters
    ----------
    adata
        Cells with ``obs`` columns ``perturbation, batch, cell_type`` and optionally ``dose``,
        and optionally ``obsm["spatial"]``.
    gene_key
        Layer of the raw counts; ``"X"`` for the matrix itself.
    vocabulary
        Labels and their columns; collected from ``adata`` if not given.
    control, separator
        Label of the unperturbed cells, and what joins combinations, for a collected vocabulary.

    Raises
    ------
    DataError
        If a layer or column is missing, no cell is a control, or the counts are negative or not
        finite.
    """

    def __init__(
        self,
        adata: AnnData,
        gene_key: str = "counts",
        vocabulary: Vocabulary | None = None,
        control: str = "control",
        separator: str = "+",
    ) -> None:
        _check(adata, gene_key)
        self.vocabulary = vocabulary or _collected(adata.obs, control, separator)
        if gene_key == "X":
            adata = adata.copy()
            adata.layers["X"] = adata.X
        table = CellTable.from_adata(adata, self.vocabulary, gene_key)
        # Single cells are not read from a disk one by one.
        self.table = table.subset(np.arange(len(table))) if table.is_on_disk else table
        values = csr_matrix(self.table.counts).data
        if not np.isfinite(values).all() or (values < 0).any() or (values % 1 != 0).any():
            raise DataError(
                f"layers['{gene_key}']: counts must be finite, non-negative integers (raw, not "
                "log-normalised); `cfmvc data check FILE` names the cells"
            )

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return self.table.n_genes

    @property
    def n_batch(self) -> int:
        """Number of batches."""
        return len(self.vocabulary.batches)

    @property
    def n_ct(self) -> int:
        """Number of cell types."""
        return len(self.vocabulary.cell_types)

    @property
    def n_perts(self) -> int:
        """Number of perturbation columns, the control's included."""
        return len(self.vocabulary.perturbations)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        cells = self.table.cells(np.asarray([index]), torch.device("cpu"))
        return {
            "x": cells.x[0],
            "p": cells.p[0],
            "batch": cells.batch[0],
            "cell_type": cells.cell_type[0],
            "spatial": None if cells.spatial is None else cells.spatial[0],
        }


def collate_fn_cfm(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack items of :class:`SingleCellDataset`; ``spatial`` stays None where it is None."""
    stacked: dict[str, Any] = {
        key: torch.stack([item[key] for item in items]) for key in ("x", "p", "batch", "cell_type")
    }
    has_coordinates = items[0].get("spatial") is not None
    stacked["spatial"] = (
        torch.stack([item["spatial"] for item in items]) if has_coordinates else None
    )
    return stacked


def _conditions_of(obs: pd.DataFrame, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct perturbation vectors, and the row of each cell.

    Label and dose are told apart first: a vector a cell would be cells times perturbations.
    """
    told = pd.DataFrame({"label": obs["perturbation"].astype(str).to_numpy()})
    if "dose" in obs:
        told["dose"] = obs["dose"].to_numpy(float)
    kinds = told.drop_duplicates().reset_index(drop=True)
    doses = kinds["dose"].to_numpy() if "dose" in kinds else None
    vectors = vocabulary.perturbation_matrix(kinds["label"].to_numpy(), doses)
    conditions, position = np.unique(vectors, axis=0, return_inverse=True)
    kind = told.groupby(list(told), sort=False, dropna=False).ngroup().to_numpy()
    return conditions, position.reshape(-1)[kind].astype(np.int64)


def _collected(obs: pd.DataFrame, control: str, separator: str) -> Vocabulary:
    labels = sorted(set(obs["perturbation"].astype(str)))
    if control not in labels:  # no perturbation would be a vector that was never trained on
        raise DataError(
            f"obs['perturbation']: no cell is labelled '{control}', the control"
            f"{suggest(control, labels)}; labels are {listed(labels)}; name the label of the "
            "unperturbed cells: SingleCellDataset(..., control=LABEL)"
        )
    return Vocabulary.of(labels, obs["batch"], obs["cell_type"], control, separator)


def _check(adata: AnnData, gene_key: str) -> None:
    missing = [
        column for column in ("perturbation", "batch", "cell_type") if column not in adata.obs
    ]
    if missing:
        raise DataError(f"obs: no column {listed(missing)}; columns: {listed(adata.obs.columns)}")
    for column in ("perturbation", "batch", "cell_type"):
        if adata.obs[column].isna().any():
            n_missing = int(adata.obs[column].isna().sum())
            raise DataError(f"obs['{column}']: {n_missing} of {adata.n_obs} labels are missing")
    if gene_key == "X" and adata.X is None:
        raise DataError(f"X: there is none; layers: {listed(adata.layers) or 'none'}")
    if gene_key != "X" and gene_key not in adata.layers:
        raise DataError(f"layers: no layer '{gene_key}'; layers: {listed(adata.layers)}")
