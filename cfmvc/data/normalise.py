"""Counts to the common log space in which real and predicted cells are compared."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cfmvc.errors import DataError


def library_sizes(counts: sparse.csr_matrix) -> NDArray[np.float64]:
    """Return the counts of each cell, shape ``(n_cells,)``."""
    return np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()


def median_library(counts: sparse.csr_matrix) -> float:
    """Return the median library size of the cells (rows), in counts.

    Raises
    ------
    DataError
        If it is 0, so that nothing can be scaled to it.
    """
    median = float(np.median(library_sizes(counts))) if counts.shape[0] else 0.0
    if median <= 0:
        raise DataError("the median library size of the training cells is 0: no counts to compare")
    return median


def log_normalise(counts: sparse.csr_matrix, library: float) -> sparse.csr_matrix:
    """Scale each cell to ``library`` counts and take ``log1p``; zeros stay zeros, CSR stays CSR.

    Parameters
    ----------
    counts
        Shape ``(n_cells, n_genes)``. A cell without counts stays zero.
    library
        Counts a cell after scaling: the median of the training cells, the same for all.

    Returns
    -------
    float64, same shape.
    """
    sizes = library_sizes(counts)
    factors = np.divide(library, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    values = np.log1p(counts.data * np.repeat(factors, np.diff(counts.indptr)))
    # Copies: who sorts the result in place must not mix up the counts.
    places = (counts.indices.copy(), counts.indptr.copy())
    return sparse.csr_matrix((values, *places), counts.shape)
