"""From a path to an AnnData, and from any kind of matrix to CSR, without densifying."""

import warnings
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse, vstack

from cfmvc.errors import DataError

_ROWS_PER_BLOCK = 2048


def open_h5ad(path: Path) -> AnnData:
    """Read an ``.h5ad`` file.

    Raises
    ------
    DataError
        If there is no such file, or it is no AnnData file, or it is damaged.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; expected an .h5ad file")
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: empty file (0 bytes); copy or download it again")
    try:
        is_hdf5 = h5py.is_hdf5(path)
    except OSError:
        is_hdf5 = False
    if not is_hdf5:
        raise DataError(
            f"{path}: not an HDF5 file, so no .h5ad file; write it with adata.write_h5ad(path)"
        )
    try:
        with h5py.File(path) as file:
            if "obs" not in file or "var" not in file:
                raise DataError(
                    f"{path}: an HDF5 file, but no AnnData file (no groups 'obs' and 'var'); "
                    "write it with adata.write_h5ad(path)"
                )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what these warn of, the checks report
            return anndata.read_h5ad(path)
    except DataError:
        raise
    except Exception as error:  # h5py and anndata raise whatever the damage happens to break
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path}: cannot be read ({first_line}); the file is damaged or incomplete: "
            "copy or download it again"
        ) from error


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
        csr_matrix(np.asarray(matrix[start : start + _ROWS_PER_BLOCK], dtype=dtype))
        for start in range(0, n_cells, _ROWS_PER_BLOCK)
    ]
    return vstack(blocks, format="csr") if blocks else csr_matrix(matrix.shape)
