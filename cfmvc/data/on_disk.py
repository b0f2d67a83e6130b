"""Counts that stay in their file: of millions of cells a training holds a few thousand."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from anndata.abc import CSRDataset
from scipy.sparse import csr_matrix, vstack

from cfmvc.data.reading import ROWS_PER_BLOCK, canonical_rows, damaged


class CountsOnDisk:
    """Some rows of a sparse matrix in a file; it reads what it is asked for.

    It has what a :class:`~cfmvc.data.CellTable` uses of scipy's CSR matrices, which is what
    indexing returns.

    Parameters
    ----------
    stored
        A CSR matrix that :func:`~cfmvc.data.reading.open_cells` has left on disk.
    rows
        Rows of the file, in the order in which they count here; all of them if not given.
    """

    def __init__(self, stored: CSRDataset, rows: np.ndarray | None = None) -> None:
        self._stored = stored
        self._rows = np.arange(stored.shape[0]) if rows is None else rows

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return len(self._rows), int(self._stored.shape[1])

    @property
    def values_per_row(self) -> float:
        """How many values of a row of the file are stored, on average."""
        n_rows = max(int(self._stored.shape[0]), 1)
        return float(self._stored.group["data"].shape[0]) / n_rows

    def __getitem__(self, chosen: np.ndarray | slice) -> csr_matrix:
        """Read rows (indices, a boolean mask or a slice), ``(n, n_genes)`` float32.

        Raises
        ------
        DataError
            If the file is damaged there.
        """
        wanted = self._rows[chosen]
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        bounds = np.flatnonzero(np.diff(ordered // ROWS_PER_BLOCK)) + 1
        parts = [self._read(some) for some in np.split(ordered, bounds) if len(some)]
        if not parts:
            return csr_matrix((0, self.shape[1]), dtype=np.float32)
        read = parts[0] if len(parts) == 1 else vstack(parts, format="csr")
        if (order[1:] > order[:-1]).all():
            return read
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return read[back]

    def sum(self, axis: int) -> np.ndarray:
        """Return the sums of rows (``axis=1``) or columns (``axis=0``), float64."""
        return self._margins[1 - axis]

    def mean(self, axis: int) -> np.ndarray:
        """Return the means of rows (``axis=1``) or columns (``axis=0``), float64."""
        return self.sum(axis) / max(self.shape[axis], 1)

    @cached_property
    def _margins(self) -> tuple[np.ndarray, np.ndarray]:
        of_rows, of_columns = [np.zeros(0)], np.zeros(self.shape[1])
        for block in self._blocks():
            of_rows.append(np.asarray(block.sum(axis=1, dtype=np.float64)).reshape(-1))
            of_columns += np.asarray(block.sum(axis=0, dtype=np.float64)).reshape(-1)
        return np.concatenate(of_rows), of_columns

    def _blocks(self) -> Iterator[csr_matrix]:
        for start in range(0, len(self._rows), ROWS_PER_BLOCK):
            yield self[start : start + ROWS_PER_BLOCK]

    def _read(self, ordered: np.ndarray) -> csr_matrix:
        first, last = int(ordered[0]), int(ordered[-1])
        try:
            block = canonical_rows(self._stored[first : last + 1])
        except (OSError, RuntimeError) as error:
            raise damaged(f"counts, rows {first:,} to {last:,}", error) from error
        return block if (np.diff(ordered) == 1).all() else block[ordered - first]


def float_counts(counts: Any, rows: np.ndarray | None) -> csr_matrix | CountsOnDisk:
    """Return rows of a matrix (all if not given) as float32: CSR, or on disk if it is there."""
    if isinstance(counts, CSRDataset):
        return CountsOnDisk(counts, rows)
    return csr_matrix(counts if rows is None else counts[rows], dtype=np.float32)
