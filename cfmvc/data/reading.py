"""From a path to an AnnData, and from any kind of matrix to CSR, without densifying."""

import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import zarr
from anndata import AnnData
from anndata.abc import CSRDataset
from anndata.experimental import read_dispatched
from anndata.io import sparse_dataset
from scipy.sparse import csr_matrix, issparse, vstack

from cfmvc.errors import DataError

MOST_IN_MEMORY = 2**30  # bytes of a matrix
ROWS_PER_BLOCK = 4096
_BYTES_A_NUMBER = 4  # as float32 or int32, whatever the file has


def open_cells(path: Path, most_bytes: float = MOST_IN_MEMORY) -> AnnData:
    """Read an ``.h5ad`` file or a ``.zarr`` folder; large matrices stay on disk.

    Parameters
    ----------
    path
        Where the cells are.
    most_bytes
        Matrices (CSR or dense) that would need more than this in memory are left where they are:
        :func:`row_blocks` reads them block by block.

    Raises
    ------
    DataError
        If there are no such cells, or the file is damaged.
    """
    group = _zarr_group(path) if path.is_dir() else _hdf5_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what these warn of, the checks report
            if path.is_file() and not _has_large(group, most_bytes):
                group.close()
                return anndata.read_h5ad(path)
            found = read_dispatched(group, partial(_read_or_leave, most_bytes))
            # Before anndata 0.8 nothing said what a file is: such a one is read as a whole.
            return found if isinstance(found, AnnData) else _whole(path)
    except Exception as error:  # h5py and anndata raise whatever the damage happens to break
        raise damaged(path, error) from error


def _whole(path: Path) -> AnnData:
    return anndata.read_h5ad(path) if path.is_file() else anndata.read_zarr(path)


def damaged(path: Path | str, error: Exception) -> DataError:
    """Return the error of a file that cannot be read."""
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(
        f"{path}: cannot be read ({first_line}); the file is damaged or incomplete: "
        "copy or download it again"
    )


def _hdf5_file(path: Path) -> h5py.File:
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: empty file (0 bytes); copy or download it again")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path}: may not be read by this user; ask its owner, or copy it")
    try:
        is_hdf5 = h5py.is_hdf5(path)
    except OSError:
        is_hdf5 = False
    if not is_hdf5:
        raise DataError(
            f"{path}: not an HDF5 file, so no .h5ad file; write it with adata.write_h5ad(path)"
        )
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise damaged(path, error) from error
    if "obs" in file and "var" in file:
        return file
    file.close()
    raise DataError(
        f"{path}: an HDF5 file, but no AnnData file (no groups 'obs' and 'var'); "
        "write it with adata.write_h5ad(path)"
    )


def _zarr_group(path: Path) -> Any:
    with suppress(Exception):  # zarr raises what its versions and stores happen to raise
        group = zarr.open_group(path, mode="r")
        if "obs" in group and "var" in group:
            return group
    raise DataError(
        f"{path}: is a folder, and no AnnData in zarr's form; expected an .h5ad file or what "
        "adata.write_zarr(path) makes"
    )


def _has_large(file: h5py.File, most_bytes: float) -> bool:
    found: list[str] = []

    def look(name: str, item: Any) -> None:
        n_values = item.size if isinstance(item, h5py.Dataset) else None
        if n_values is not None and n_values * _BYTES_A_NUMBER > most_bytes:  # None: "nothing"
            found.append(name)

    file.visititems(look)
    return bool(found)


def _read_or_leave(most_bytes: float, read: Any, name: str, stored: Any, iospec: Any) -> Any:
    """Read an element of a file, or leave it there if it is a large matrix."""
    if iospec.encoding_type == "csr_matrix":
        bytes_a_number = 2 * _BYTES_A_NUMBER  # its column is stored too
        if stored["data"].shape[0] * bytes_a_number > most_bytes:
            return sparse_dataset(stored)
    is_matrix = iospec.encoding_type == "array" and len(stored.shape) == 2
    if is_matrix and stored.shape[0] * stored.shape[1] * _BYTES_A_NUMBER > most_bytes:
        return stored
    return read(stored)


def matrix_of(adata: AnnData, layer: str) -> Any:
    """Return a layer (``X``: the matrix itself) as it is stored, or None if it is not there."""
    if layer == "X" and "X" not in adata.layers:
        return adata.X
    return adata.layers.get(layer, None)


def name_of_layer(layer: str) -> str:
    """Return the layer's name as a user writes it."""
    return "X" if layer == "X" else f"layers['{layer}']"


def is_sparse(matrix: Any) -> bool:
    """Whether a matrix is one of scipy's sparse ones (which its type alone does not tell mypy)."""
    return bool(issparse(matrix))


def is_on_disk(matrix: Any) -> bool:
    """Whether a matrix was left in its file."""
    return isinstance(matrix, CSRDataset | h5py.Dataset | zarr.Array)


def row_blocks(matrix: Any) -> Iterator[csr_matrix]:
    """Yield a matrix as CSR, some rows at a time: all of one in memory, some thousand on disk.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    if not is_on_disk(matrix):
        yield to_csr(matrix)
        return
    for start in range(0, matrix.shape[0], ROWS_PER_BLOCK):
        try:
            block = matrix[start : start + ROWS_PER_BLOCK]
        except (OSError, RuntimeError) as error:
            raise damaged(f"rows from {start:,} on", error) from error
        yield to_csr(block)


def canonical_rows(rows: csr_matrix) -> csr_matrix:
    """Return float32 CSR, sorted, each entry once and none of them 0; the given one stays."""
    own = csr_matrix(rows, dtype=np.float32, copy=True)  # of small integers a sum may be none
    own.sum_duplicates()  # sorts as well
    own.eliminate_zeros()
    return own


def to_csr(matrix: Any) -> csr_matrix:
    """Return a matrix of any kind (dense, CSC, on disk) as CSR; dense ones go block by block."""
    if hasattr(matrix, "to_memory"):
        matrix = matrix.to_memory()
    if is_sparse(matrix):
        return csr_matrix(matrix)
    n_cells = matrix.shape[0]
    # scipy's sparse matrices know no float16
    dtype = np.float32 if matrix.dtype == np.float16 else matrix.dtype
    blocks = [
        csr_matrix(np.asarray(matrix[start : start + ROWS_PER_BLOCK], dtype=dtype))
        for start in range(0, n_cells, ROWS_PER_BLOCK)
    ]
    return vstack(blocks, format="csr") if blocks else csr_matrix(matrix.shape)
