"""Means of conditions are those of their cells, however the cells are read."""

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from cfmvc.data.dataset import CellTable
from cfmvc.flow.state_slopes import PairedCells, PairGroup
from cfmvc.models.condition_means import ConditionMeans
from cfmvc.models.mean_response import MeanResponse
from cfmvc.stages import response
from cfmvc.stages.memory import DataShape, mean_response_phase
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
    monkeypatch.setattr(MeanResponse, "fit", lambda *given: seen.append(given[:2]))
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


@pytest.mark.parametrize("at_a_time", [17, 4096])
def test_paired_cells_are_the_tables_own(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[PairedCells] = []
    monkeypatch.setattr(MeanResponse, "fit", lambda *given: seen.append(given[3]))
    monkeypatch.setattr(response, "_CELLS_AT_A_TIME", at_a_time)
    rows = np.random.default_rng(0).permutation(200)[:60].reshape(2, 2, 15)
    groups = [PairGroup(VECTORS[1], *some) for some in rows]
    tables = [table(200, 0), table(60, 1)]
    fit_response(tables, 10.0, np.zeros((3, 0)), groups)
    ((found),) = seen
    dense = tables[0].counts.toarray().astype(float)
    logged = np.log1p(dense / dense.sum(1, keepdims=True) * 10.0)
    assert found.expression.shape[0] == 60
    for group, (before, after) in zip(found.groups, rows, strict=True):
        np.testing.assert_array_equal(group.p, VECTORS[1])
        for mine, given in ((group.before, before), (group.after, after)):
            np.testing.assert_allclose(found.expression[mine].toarray(), logged[given], rtol=1e-6)


@pytest.mark.parametrize(
    ("n_perturbations", "n_genes", "n_batches", "n_embedding"),
    [
        (1000, 200, 4, 0),
        (1500, 2000, 4, 0),
        (200, 2000, 4, 0),
        (300, 500, 4, 0),
        (600, 1000, 1, 0),
        (600, 200, 4, 8),
    ],
)
def test_many_conditions_need_the_memory_that_is_expected(
    n_perturbations: int, n_genes: int, n_batches: int, n_embedding: int
) -> None:
    """Traced, and not of the process: within a quarter, of the arrays alone."""
    every = n_perturbations + 1
    condition, batch = np.divmod(np.arange(2 * n_batches * every), 2 * n_batches)
    rng = np.random.default_rng(0)
    counts = csr_matrix(rng.poisson(0.2, (len(batch), n_genes)).astype(np.float32))
    vectors = np.eye(every, dtype=np.float32)
    vectors[0] = 0.0
    cells = CellTable(counts, vectors, condition, batch % n_batches, np.zeros(len(batch), int))
    nothing = cells.subset(np.arange(0))
    shape, embeddings = DataShape.of(cells, nothing), rng.normal(size=(every, n_embedding))
    expected = mean_response_phase(shape, [], n_embedding > 0).parts()
    tracemalloc.start()
    fit_response([cells, nothing], 200.0, embeddings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(expected.values()) == pytest.approx(peak, rel=0.25)
