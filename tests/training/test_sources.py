"""Steps of a table on disk hold what the same rows of a table in memory hold."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cfmvc.data import CellTable, Vocabulary
from cfmvc.data.reading import open_cells
from cfmvc.data.samplers import ShuffledCells
from cfmvc.models.reference import ReferenceCells
from cfmvc.stages import TrainingCells, fit_vae
from cfmvc.stages.encoding import encode_table
from cfmvc.training.config import FlowConfig, VaeConfig
from cfmvc.training.pair_rounds import PairRounds
from cfmvc.training.pairs import CellPairs
from cfmvc.training.sources import IndexedCells, LatentSource, TableSource
from tests.training.conftest import flow_config_from, small_adata, training_cells
from tests.training.test_pairs import encoded
from tests.training.test_resume import Stopped, engine, trained

CPU = torch.device("cpu")


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[CellTable]:
    """The same cells in memory and on disk, of which a few make a window."""
    monkeypatch.setattr("cfmvc.data.samplers.ROWS_PER_BLOCK", 8)
    monkeypatch.setattr("cfmvc.data.samplers.ROWS_PER_WINDOW", 32)
    adata = small_adata(150, 12)
    adata.write_h5ad(tmp_path / "x.h5ad")
    vocabulary = Vocabulary.of(
        adata.obs["perturbation"], adata.obs["batch"], adata.obs["cell_type"], "control"
    )
    left = open_cells(tmp_path / "x.h5ad", 0)
    rows = np.arange(0, 150, 2)
    return [CellTable.from_adata(some, vocabulary, rows=rows) for some in (adata, left)]


@pytest.mark.parametrize("first_step", [0, 1, 3, 9, 10])
def test_steps_of_a_table_on_disk(tables: list[CellTable], first_step: int) -> None:
    memory, disk = tables
    source = TableSource(disk, 8, seed=1, device=CPU)
    steps = list(source.epoch(2, first_step))
    assert len(steps) == source.n_steps - first_step
    visited = np.concatenate([np.zeros(0, np.int64), *(step.rows for step in source.epoch(2))])
    np.testing.assert_array_equal(np.sort(visited), np.arange(75))
    for step, rows in zip(steps, np.split(visited, range(8, 75, 8))[first_step:], strict=True):
        np.testing.assert_array_equal(step.rows, rows)
        expected = memory.cells(rows, CPU, with_terms=True)
        found = step.take(slice(None))
        assert torch.equal(found.x, expected.x)
        assert torch.equal(found.p, expected.p)
        assert torch.equal(found.batch, expected.batch)
        assert torch.equal(found.terms.at_least, expected.terms.at_least)
        assert torch.equal(step.take(slice(1, 3)).x, expected.x[1:3])


@pytest.mark.parametrize("kind", [0, 1])
def test_cells_that_live_on_the_device_are_the_same(
    tables: list[CellTable], kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = TableSource(tables[kind], 8, seed=1, device=CPU)
    expected = list(source.epoch(2))
    monkeypatch.setattr("cfmvc.data.resident.lives_on", lambda *of: True)
    found = list(TableSource(tables[kind], 8, seed=1, device=CPU).epoch(2))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        cells, same = one.take(slice(1, None)), other.take(slice(1, None))
        for name in ("x", "p", "batch", "cell_type"):
            assert torch.equal(getattr(cells, name), getattr(same, name)), name


def test_a_training_on_cells_that_live_on_the_device_has_the_same_loss(
    tables: list[CellTable], vae_config: VaeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, losses = training_cells(20, 12), []
    for is_resident in (False, True):
        monkeypatch.setattr("cfmvc.data.resident.lives_on", lambda *of, r=is_resident: r)
        cells = TrainingCells(tables[0], tables[0], some.vocabulary, some.gene_names)
        losses.append([row["train_loss"] for row in fit_vae(cells, vae_config, CPU)[1].rows])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_a_training_from_disk_learns_what_one_in_memory_learns(
    tables: list[CellTable], vae_config: VaeConfig
) -> None:
    some = training_cells(20, 12)
    losses = []
    for table in tables:
        cells = TrainingCells(table, table, some.vocabulary, some.gene_names)
        config = vae_config.model_copy(update={"n_epochs": 20, "lr": 1e-2})
        losses.append([row["val_loss"] for row in fit_vae(cells, config, CPU)[1].rows])
    assert losses[0][-1] < losses[0][0]
    assert losses[1][-1] == pytest.approx(losses[0][-1], rel=0.02)


@pytest.mark.parametrize("stop_at", [1, 5, 12])
def test_a_training_from_disk_that_is_stopped_goes_on_to_the_same_bits(
    stop_at: int, tables: list[CellTable], vae_config: VaeConfig, tmp_path: Path
) -> None:
    cells = training_cells(150, 12)
    source = TableSource(tables[1], 8, seed=1, device=CPU)
    expected, _ = trained(cells, vae_config, None, source=source)
    with pytest.raises(Stopped):
        trained(cells, vae_config, engine(tmp_path), stop_at, source=source)
    found, _ = trained(cells, vae_config, engine(tmp_path), source=source)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("at_a_time", [2**16, 20])
def test_pairs_that_are_made_ahead_are_those_of_their_round(
    cells: TrainingCells,
    vae_config: VaeConfig,
    flow_config: FlowConfig,
    at_a_time: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CellPairs, "n_at_a_time", at_a_time)
    shape = flow_config.model_copy(update={"source": "control"})
    bundle, _ = fit_vae(cells, vae_config.model_copy(update={"n_epochs": 1}), CPU, flow=shape)
    latents = encode_table(bundle.model, cells.train, CPU)
    bundle.model.fit_standardisation(latents)

    def source(n_epochs: int) -> LatentSource:
        return LatentSource(latents, bundle.model, 16, 0, recouple_every=2, n_epochs=n_epochs)

    def pairs_of(some: LatentSource, epoch: int, first_step: int = 0) -> dict[int, int]:
        steps = list(some.epoch(epoch, first_step))
        assert all(isinstance(step, IndexedCells) for step in steps)
        return {int(row): int(pair) for step in steps for row, pair in step.indices.T}

    alone = [pairs_of(source(0), epoch) for epoch in range(6)]
    assert alone[0] == alone[1] != alone[2]
    ahead = source(6)
    for epoch in (0, 1, 2, 3, 4, 5, 2, 3, 4, 0, 4):  # also back, as a rollback goes, and on again
        assert pairs_of(ahead, epoch) == alone[epoch]
    behind = source(0)  # of whom nobody said how long it goes on
    assert [pairs_of(behind, epoch) for epoch in range(6)] == alone
    stopped = source(6)
    next(stopped.epoch(0))
    assert [pairs_of(stopped, epoch) for epoch in (2, 3, 0, 1)] == [alone[e] for e in (2, 3, 0, 1)]
    for epoch in (2, 3):
        resumed = pairs_of(source(6), epoch, first_step=2)
        assert 0 < len(resumed) < len(alone[epoch])
        assert resumed.items() <= alone[epoch].items()


def comes_true(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 30.0  # nothing here takes any time
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_step_waits_for_the_pairs_of_its_own_cells_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CellPairs, "n_at_a_time", 32)
    latents = encoded()
    pairs = CellPairs(latents, latents, lambda z: z, "ot", 0)
    made, may_go_on = list[int](), threading.Semaphore(0)

    def paired(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        may_go_on.acquire()
        made.append(len(places))
        return CellPairs._paired(pairs, places, rng)

    monkeypatch.setattr(pairs, "_paired", paired)
    order = ShuffledCells(len(pairs.rows), 16, 0)
    rounds = PairRounds(pairs, order, 5, 10)
    for number, places in enumerate(order.epoch(0)):
        if number % 2 == 0:
            may_go_on.release()
        assert (rounds.controls(0, places) >= 0).all()
        assert len(made) == 1 + number // 2
    assert sum(made) == len(pairs.rows)
    may_go_on.release(pairs.n_parts_of_round)  # the next round is made while this one serves
    comes_true(lambda: sum(made) == 2 * len(pairs.rows))
    rounds.controls(1, np.arange(len(pairs.rows)))
    assert sum(made) == 2 * len(pairs.rows)


def test_nothing_keeps_the_cells_of_a_finished_training() -> None:
    latents = encoded()
    pairs = CellPairs(latents, latents, lambda z: z, "ot", 0)
    order, kept = ShuffledCells(len(pairs.rows), 16, 0), weakref.ref(pairs)
    rounds = PairRounds(pairs, order, 1, 2)
    for epoch in range(2):
        rounds.controls(epoch, np.arange(len(pairs.rows)))
    gc.disable()
    try:
        del pairs, rounds
        comes_true(lambda: kept() is None)  # the thread lets go of its last work in its own time
    finally:
        gc.enable()


@pytest.mark.parametrize("coupling", ["ot", "independent"])
def test_pairs_made_in_parts_are_within_strata_and_use_controls_about_equally_often(
    coupling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = encoded(4000)
    pairs = CellPairs(latents, latents, lambda z: z, coupling, 0)
    order = np.random.default_rng(1).permutation(len(pairs.rows))
    whole = dict(zip(*next(pairs.of_round(0, order)), strict=True))
    monkeypatch.setattr(CellPairs, "n_at_a_time", 500)
    parts = list(pairs.of_round(0, order))
    assert len(parts) == pairs.n_parts_of_round == -(-len(order) // 500)
    places, controls = map(np.concatenate, zip(*parts, strict=True))
    assert set(places) == set(whole) == set(range(len(order)))
    assert latents.is_control[controls].all()
    assert latents.is_finite[controls].all()
    assert torch.equal(latents.stratum[pairs.rows[places]], latents.stratum[controls])
    for part, (some, _) in enumerate(parts):
        np.testing.assert_array_equal(some, np.sort(order[500 * part : 500 * (part + 1)]))
    _, n_uses = np.unique(controls, return_counts=True)
    assert n_uses.max() <= np.unique(list(whole.values()), return_counts=True)[1].max() + 3


def test_pairs_made_in_parts_are_about_as_near_as_those_of_a_whole_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    latents = encoded(12_000)
    pairs = CellPairs(latents, latents, lambda z: z, "ot", 0)
    order, (targets, sources) = np.random.default_rng(1).permutation(len(pairs.rows)), pairs.points

    def mean_distance() -> float:
        places, controls = map(np.concatenate, zip(*pairs.of_round(0, order), strict=True))
        return float(((targets[pairs.rows[places]] - sources[controls]) ** 2).sum(1).mean())

    whole = mean_distance()
    assert pairs.n_parts_of_round == 1
    monkeypatch.setattr("cfmvc.training.pairs._AT_LEAST_AT_A_TIME", 1)
    assert pairs.n_parts_of_round > 3
    assert mean_distance() == pytest.approx(whole, rel=0.05)
    monkeypatch.setattr(CellPairs, "n_at_a_time", 60)  # some ten cells of a condition
    assert mean_distance() > 1.5 * whole


def test_pairs_are_finite_controls_of_the_stratum(
    vae_config: VaeConfig, flow_config: FlowConfig
) -> None:
    cells = training_cells(300, 12)
    shape = flow_config.model_copy(update={"source": "control"})
    bundle, _ = fit_vae(cells, vae_config.model_copy(update={"n_epochs": 1}), CPU, flow=shape)
    latents = encode_table(bundle.model, cells.train, CPU)
    bundle.model.fit_standardisation(latents)
    means = latents.int_mean.clone()
    means[latents.is_control.nonzero()[::3, 0]] = torch.nan
    alone = latents.is_control & (latents.batch == 0) & (latents.cell_type == 0)
    means[alone] = torch.inf  # a stratum without any usable control
    latents = replace(latents, int_mean=means)
    source = LatentSource(latents, bundle.model, 64, 0)
    target, control = np.concatenate([step.indices for step in source.epoch(0)], axis=1)
    assert not latents.is_control[target].any()
    assert latents.is_control[control].all()
    assert latents.is_finite[control].all()
    assert torch.equal(latents.batch[target], latents.batch[control])
    assert torch.equal(latents.cell_type[target], latents.cell_type[control])
    usable = {
        (int(b), int(t))
        for b, t, good in zip(
            latents.batch,
            latents.cell_type,
            latents.is_control & latents.is_finite,
            strict=True,
        )
        if good
    }
    strata = zip(latents.batch.tolist(), latents.cell_type.tolist(), strict=True)
    expected = [
        row
        for row, (stratum, is_control) in enumerate(zip(strata, latents.is_control, strict=True))
        if not is_control and stratum in usable
    ]
    assert sorted(target.tolist()) == expected
    assert (0, 0) not in usable


def test_conditions_are_numbered_by_vector_batch_and_cell_type() -> None:
    rng = torch.Generator().manual_seed(0)
    vector, batch, cell_type = (torch.randint(0, n, (200,), generator=rng) for n in (7, 3, 5))
    empty = torch.zeros(200, 1)
    cells = ReferenceCells(
        torch.eye(7), vector, batch, cell_type, torch.ones(200), empty, empty, empty, empty
    )
    keys = torch.stack([vector, batch, cell_type], dim=1)
    assert torch.equal(cells.condition, torch.unique(keys, dim=0, return_inverse=True)[1])
    assert len(cells.select(torch.zeros(0, dtype=torch.int64)).condition) == 0


def test_pairs_lie_near_each_other_in_the_tissue(
    vae_config: VaeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose pair may lie anywhere, to him his place says nothing of what becomes of him."""
    shape = flow_config_from("control")
    cells = training_cells(600, 12)
    places = np.random.default_rng(0).uniform(0, 1000, (len(cells.train), 2)).astype(np.float32)
    bundle, _ = fit_vae(cells, vae_config.model_copy(update={"n_epochs": 1}), CPU, flow=shape)
    latents = encode_table(bundle.model, cells.train, CPU)
    latents = replace(latents, spatial=torch.from_numpy(places))
    bundle.model.fit_standardisation(latents)

    def distance() -> float:
        source = LatentSource(latents, bundle.model, 64, 0)
        target, control = np.concatenate([step.indices for step in source.epoch(0)], axis=1)
        return float(np.linalg.norm(places[target] - places[control], axis=1).mean())

    near = distance()
    monkeypatch.setattr("cfmvc.training.pairs._PLACE", 0.0)
    assert near < 0.5 * distance()
