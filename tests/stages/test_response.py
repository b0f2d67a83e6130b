"""Means of conditions are those of their cells, however the cells are read."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from cfmvc.data.dataset import CellTable
from cfmvc.models.mean_response import ConditionMeans, MeanResponse
from cfmvc.stages import response
from cfmvc.stages.response import fit_response

VECTORS = np.asarray([[0, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)


def table(n: int, seed: int, n_genes: int = 12) -> CellTable:
    rng = np.random.default_rng(seed)
    counts = csr_matrix(rng.poisson(1.0, (n, n_genes)).astype(np.float32))
    return CellTable(
        counts, VECTORS, rng.integers(0, 3, n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    )


def test_means_and_spread_are_those_of_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[ConditionMeans, np.ndarray]] = []
    monkeypatch.setattr(MeanResponse, "fit", lambda cells, spread, _: seen.append((cells, spread)))
    monkeypatch.setattr(response, "_CELLS_AT_A_TIME", 17)
    tables = [table(200, 0), table(60, 1)]
    fit_response(tables, 10.0, np.zeros((3, 0)))
    ((cells, spread),) = seen
    dense = np.concatenate([t.counts.toarray() for t in tables]).astype(float)
    logged = np.log1p(dense / dense.sum(1, keepdims=True) * 10.0)
    labels = np.concatenate([np.stack([t.condition, t.batch, t.cell_type], axis=1) for t in tables])
    assert len(cells.means) == len(np.unique(labels, axis=0)) == 12
    left = logged.copy()
    for row in range(12):
        kind = int((cells.p[row] == VECTORS).all(1).nonzero()[0][0])
        mine = (labels == (kind, cells.batch[row], cells.cell_type[row])).all(1)
        assert cells.n_cells[row] == mine.sum()
        np.testing.assert_allclose(cells.means[row], logged[mine].mean(0), rtol=1e-12)
        left[mine] -= logged[mine].mean(0)
    np.testing.assert_allclose(spread, np.sqrt((left**2).sum(0) / (260 - 12)), rtol=1e-10)


def test_a_cell_that_is_not_finite_disturbs_nothing() -> None:
    whole, spoilt = table(200, 0), table(200, 0)
    spoilt.counts.data[0] = np.nan
    rows = np.arange(200) != 0
    with_it = fit_response([spoilt], 10.0, np.zeros((3, 0)))
    without = fit_response([whole.subset(rows)], 10.0, np.zeros((3, 0)))
    assert with_it is not None
    assert without is not None
    np.testing.assert_allclose(with_it.controls, without.controls, rtol=1e-6)
