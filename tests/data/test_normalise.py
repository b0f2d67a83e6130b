import numpy as np
import pytest
from scipy import sparse

from cfmvc.data.normalise import log_normalise, median_library
from cfmvc.errors import DataError


def test_cells_are_scaled_to_the_given_library_in_log_space() -> None:
    counts = sparse.csr_matrix([[1.0, 3.0, 0.0], [10.0, 0.0, 10.0], [0.0, 0.0, 0.0]])
    logged = log_normalise(counts, 8.0)
    assert sparse.isspmatrix_csr(logged)
    assert logged.nnz == counts.nnz
    expected = np.log1p([[2.0, 6.0, 0.0], [4.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(logged.toarray(), expected)
    assert counts[1, 0] == 10.0


def test_median_library() -> None:
    assert median_library(sparse.csr_matrix([[1.0, 1.0], [3.0, 1.0], [9.0, 9.0]])) == 4.0
    with pytest.raises(DataError, match="median library size"):
        median_library(sparse.csr_matrix((3, 2)))
