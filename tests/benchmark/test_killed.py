"""Benchmarks whose processes are killed: what was computed is kept, and no run stays open."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cfmvc.tracking.store import Store
from tests.forked import ForkedModule
from tests.tuning.conftest import write_params

WORDS = ["benchmark", "--task", "held_out_cell_type", "--seeds", "2"]


def start(workspace: Path, *options: str) -> ForkedModule:
    return ForkedModule("cfmvc", [*WORDS, *options], workspace, os.environ)


def kept(workspace: Path) -> dict[str, int]:
    """Return when each fold and seed was written, by its key."""
    folder = workspace / ".cfmvc" / "benchmark" / "scores"
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/facts.json")}


def wait_until_kept(workspace: Path, n: int) -> None:
    deadline = time.monotonic() + 240
    while len(kept(workspace)) < n:
        assert time.monotonic() < deadline, f"{n} folds were not scored"
        time.sleep(0.05)


def expect_whole(workspace: Path, store: Store) -> None:
    assert len(kept(workspace)) == 4
    assert (workspace / "results/benchmark/simulated/held_out_cell_type/table.md").is_file()
    runs = list(store.find_runs(store.experiment_ids(), ""))
    assert not [run.info.run_name for run in runs if run.info.status == "RUNNING"]
    parents = [run for run in runs if run.info.run_name == "benchmark"]
    assert [run.info.status for run in parents] == ["FINISHED"], "one, gone on with"
    done = [run for run in runs if run not in parents and run.info.status == "FINISHED"]
    names = {(run.data.tags["cfmvc.fold"], run.data.tags["cfmvc.seed"]) for run in done}
    assert names == {(fold, seed) for fold in ("type_1", "type_2") for seed in "01"}
    assert {run.data.tags["mlflow.parentRunId"] for run in done} == {parents[0].info.run_id}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_a_killed_benchmark_goes_on_where_it_stopped(
    options: tuple[str, ...], workspace: Path, store: Store
) -> None:
    first = start(workspace, *options)
    wait_until_kept(workspace, 1)
    first.kill()
    first.wait()
    time.sleep(1.0)  # workers notice, and end
    before = kept(workspace)
    assert 1 <= len(before) < 4
    again = start(workspace, *options)
    assert again.wait(300) == 0, again.communicate()[0]
    after = kept(workspace)
    assert {key: after[key] for key in before} == before, "nothing is computed twice"
    expect_whole(workspace, store)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_benchmark_that_is_told_to_end_closes_its_runs(
    workspace: Path, store: Store, params: dict[str, Any]
) -> None:
    params["flow"] |= {"n_epochs": 4000, "patience": 4000}
    write_params(workspace, params)
    first = start(workspace)
    vaes = workspace / ".cfmvc" / "benchmark" / "vae"
    deadline = time.monotonic() + 240
    while not list(vaes.glob("*/course.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 143, first.communicate()[0]
    statuses = {run.info.status for run in store.find_runs(store.experiment_ids(), "")}
    assert statuses == {"KILLED"}
