"""A training that is killed and started again goes on in its run, as if it had never stopped."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cfmvc.tracking.leftovers import sync
from cfmvc.tracking.spool import spools
from cfmvc.tracking.store import Store
from tests.conftest import PROJECT
from tests.forked import ForkedModule
from tests.servers.mlflow_server import Server
from tests.tracking.a_training import N_EPOCHS
from tests.tracking.conftest import PARAMS, artifact_text, runs_of, steps_of

pytestmark = pytest.mark.slow  # each starts several processes

OF_THE_MACHINE = {
    "cells_per_second",
    "step_seconds",
    "peak_rss_gib",
    "estimated_peak_memory_gib",
}
Train = Callable[..., ForkedModule]


@pytest.fixture
def train(workspace: Path) -> Iterator[Train]:
    """Return a function that starts ``tests.tracking.a_training`` as a process of its own."""
    started = []

    def start(fingerprint: str = "ours", **environment: str) -> ForkedModule:
        process = start_training(workspace, fingerprint, **environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def start_training(folder: Path, fingerprint: str, **environment: str) -> ForkedModule:
    arguments = (str(folder), fingerprint)
    return ForkedModule(
        "tests.tracking.a_training", arguments, PROJECT, {**os.environ, **environment}
    )


@dataclass(frozen=True)
class Told:
    """What a run has to tell: the points of its figures, its events, and its parameters."""

    course: dict[str, list[tuple[int, float]]]
    events: list[dict[str, Any]]
    boxes: list[str]
    params: dict[str, str]

    @classmethod
    def by(cls, store: Store, run: Any) -> "Told":
        """Of figures of the machine, and of folders, only what is the same everywhere counts."""
        points = {name: sorted(steps_of(store, run, name)) for name in run.data.metrics}
        course = {
            name: [(step, 0.0) for step, _ in found] if name in OF_THE_MACHINE else found
            for name, found in points.items()
        }
        lines = artifact_text(store, run, "events/nan.jsonl").splitlines()
        events = [json.loads(line) for line in lines]
        for event in events:
            event["black_box"] = event["black_box"] and Path(event["black_box"]).name
        boxes = store.client.list_artifacts(run.info.run_id, "nan_black_box")
        return cls(course, events, [box.path for box in boxes], run.data.params)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, template_store: Path) -> Told:
    """What the run of a training tells that nobody stops."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(template_store, folder / "mlflow.db")
    (folder / "params.yaml").write_text(PARAMS)
    finished(start_training(folder, "ours"))
    store = Store.connect(f"sqlite:///{folder / 'mlflow.db'}", folder)
    (run,) = all_runs(store)
    assert run.info.status == "FINISHED"
    assert "cfmvc.resumed" not in run.data.tags
    told = Told.by(store, run)
    assert len(told.course["train_loss"]) == len(told.events) == N_EPOCHS
    assert len(told.boxes) == 1
    return told


def finished(process: ForkedModule, expect: int = 0) -> str:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == expect, said
    return said


def pause_after(workspace: Path, epoch: int) -> Path:
    """Let trainings stand still after an epoch, until the file that is returned is removed."""
    path = workspace / f"pause{epoch}"
    path.touch()
    return path


def wait_until(process: ForkedModule, is_so: Callable[[], bool]) -> None:
    while not is_so():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)


def has_epoch(store: Store, epoch: int) -> Callable[[], bool]:
    """Return whether MLflow has the figures of an epoch."""
    return lambda: any(run.data.metrics.get("epoch", 0) >= epoch for run in runs_of(store).values())


def wait_for_records(process: ForkedModule, workspace: Path, text: str) -> None:
    """Wait until the spool has a text, sent or not."""

    def there() -> bool:
        files = (workspace / ".cfmvc" / "spool").glob("*/events.jsonl")
        return any(text in file.read_text() for file in files)

    wait_until(process, there)


def kill(process: ForkedModule) -> None:
    process.kill()
    process.communicate()


def kill_ahead_of_its_checkpoint(process: ForkedModule, workspace: Path, store: Store) -> None:
    """Kill a training that has said more than its last checkpoint knows, and not sent all of it."""
    pause = pause_after(workspace, 5)
    wait_until(process, has_epoch(store, 4))
    wait_for_records(process, workspace, '"epoch": 5.0')
    kill(process)
    pause.unlink()


def all_runs(store: Store) -> list[Any]:
    return list(store.find_runs(store.experiment_ids(), ""))


def expect_as_undisturbed(store: Store, run: Any, undisturbed: Told, n_resumed: int) -> None:
    """Compare a run with that of a training which nobody has stopped."""
    assert run.info.status == "FINISHED"
    assert run.data.tags["cfmvc.resumed"] == str(n_resumed)
    assert "cfmvc.error" not in run.data.tags
    assert Told.by(store, run) == undisturbed


def test_killed_it_goes_on_in_the_same_run(
    workspace: Path, store: Store, train: Train, undisturbed: Told
) -> None:
    kill_ahead_of_its_checkpoint(train(), workspace, store)
    (before,) = all_runs(store)
    assert before.info.status == "RUNNING"
    later = pause_after(workspace, 7)
    second = train()
    wait_until(second, has_epoch(store, 7))
    (during,) = all_runs(store)
    assert during.info.status == "RUNNING"
    later.unlink()
    finished(second)
    (run,) = all_runs(store)
    assert run.info.run_id == before.info.run_id
    assert spools(workspace) == []
    assert not (workspace / "checkpoints" / "train_vae").exists()
    expect_as_undisturbed(store, run, undisturbed, 1)


def test_what_was_closed_as_killed_goes_on(
    workspace: Path, store: Store, train: Train, undisturbed: Told
) -> None:
    """Another process has sent what the killed one had left, and closed its run."""
    kill_ahead_of_its_checkpoint(train(), workspace, store)
    sync(workspace, store.uri)
    (before,) = all_runs(store)
    assert before.info.status == "KILLED"
    assert spools(workspace) == []
    finished(train())
    (run,) = all_runs(store)
    assert run.info.run_id == before.info.run_id
    expect_as_undisturbed(store, run, undisturbed, 1)


def test_stopped_by_sigterm_it_goes_on_in_the_same_run(
    workspace: Path, store: Store, train: Train, undisturbed: Told
) -> None:
    """More signals come while the first is obeyed, and the run is closed all the same."""
    pause = pause_after(workspace, 5)
    first = train()
    wait_until(first, has_epoch(store, 5))
    first.send_signal(signal.SIGTERM)
    pause.unlink()
    while first.poll() is None:
        first.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    first.communicate()
    assert first.returncode in (143, -signal.SIGTERM)  # the latter where all is closed already
    (before,) = all_runs(store)
    assert before.info.status == "KILLED"
    assert "SIGTERM" in before.data.tags["cfmvc.error"]
    finished(train())
    (run,) = all_runs(store)
    assert run.info.run_id == before.info.run_id
    expect_as_undisturbed(store, run, undisturbed, 1)


def test_a_store_that_answers_to_the_last_process_only_gets_all_of_it(
    workspace: Path, store: Store, train: Train, undisturbed: Told
) -> None:
    """What two killed processes could not send goes first, and then what the third says."""
    out_of_reach = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    for epoch in (3, 6):
        pause = pause_after(workspace, epoch)
        process = train(**out_of_reach)
        wait_for_records(process, workspace, f'"epoch": {epoch}.0')
        kill(process)
        pause.unlink()
    assert len(spools(workspace)) == 1
    finished(train(**out_of_reach))
    sync(workspace, store.uri, send_to=store.uri)
    (run,) = all_runs(store)
    expect_as_undisturbed(store, run, undisturbed, 2)


def test_killed_again_and_again_at_any_moment(
    workspace: Path, store: Store, train: Train, undisturbed: Told
) -> None:
    rng = random.Random()
    n_kills = 0
    pauses = [pause_after(workspace, epoch) for epoch in (2, 5, 8, 11)]
    for epoch, pause in zip((2, 5, 8, 11), pauses, strict=True):
        process = train()
        if epoch == 2:
            wait_for_records(process, workspace, f'"epoch": {epoch}.0')
        else:
            pauses[pauses.index(pause) - 1].unlink(missing_ok=True)
            time.sleep(rng.uniform(0, 6))
        kill(process)
        n_kills += 1
    for pause in pauses:
        pause.unlink(missing_ok=True)
    finished(train())
    (run,) = all_runs(store)
    expect_as_undisturbed(store, run, undisturbed, int(run.data.tags["cfmvc.resumed"]))
    assert 1 <= int(run.data.tags["cfmvc.resumed"]) <= n_kills


def test_another_training_gets_a_run_of_its_own_and_the_killed_one_is_closed(
    workspace: Path, store: Store, train: Train
) -> None:
    pause = pause_after(workspace, 3)
    first = train()
    wait_until(first, has_epoch(store, 3))
    kill(first)
    pause.unlink()
    finished(train("other parameters"))
    statuses = {run.data.tags.get("cfmvc.resumed"): run.info.status for run in all_runs(store)}
    assert len(all_runs(store)) == 2
    assert statuses.keys() == {None}
    assert sorted(run.info.status for run in all_runs(store)) == ["FINISHED", "KILLED"]


def test_killed_before_its_first_checkpoint_it_begins_anew(
    workspace: Path, store: Store, train: Train
) -> None:
    first = train()
    while not spools(workspace):
        time.sleep(0.01)
    kill(first)
    assert not (workspace / "checkpoints" / "train_vae" / "run.json").exists()
    finished(train())
    assert all("cfmvc.resumed" not in run.data.tags for run in all_runs(store))
    assert [run.info.status for run in all_runs(store)].count("FINISHED") == 1


def test_two_at_once_the_second_is_refused_and_takes_nothing_over(
    workspace: Path, store: Store, train: Train
) -> None:
    pause = pause_after(workspace, 3)
    first = train()
    wait_until(first, has_epoch(store, 3))
    said = finished(train(), expect=6)
    assert f"process {first.pid} of" in said
    assert str(workspace / "checkpoints" / "train_vae") in said
    pause.unlink()
    finished(first)
    (run,) = all_runs(store)
    assert run.info.status == "FINISHED"
    assert "cfmvc.resumed" not in run.data.tags


def test_below_its_parent_it_stays(workspace: Path, store: Store, train: Train) -> None:
    experiment_id = store.experiment_id("of mlflow run")
    parents = [store.client.create_run(experiment_id).info.run_id for _ in range(2)]
    pause = pause_after(workspace, 3)
    first = train(MLFLOW_RUN_ID=parents[0])
    wait_until(first, has_epoch(store, 3))
    kill(first)
    pause.unlink()
    store.client.set_terminated(parents[0], "FAILED")
    finished(train(MLFLOW_RUN_ID=parents[1]))
    (run,) = [run for run in all_runs(store) if run.info.run_name == "vae"]
    assert run.data.tags["mlflow.parentRunId"] == parents[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["cfmvc.resumed"] == "1"
    assert store.client.get_run(parents[0]).info.status == "FAILED"  # not ours to change


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, template_store: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(template_store.read_bytes())
    server = Server(folder)
    server.start()
    yield server
    server.kill()


def test_on_a_server_that_is_killed_as_well(
    workspace: Path, server: Server, train: Train, undisturbed: Told
) -> None:
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("uri: null", f"uri: {server.uri}"))
    store = Store.connect(server.uri, workspace)
    pause = pause_after(workspace, 4)
    first = train()
    wait_until(first, has_epoch(store, 4))
    kill(first)
    sync(workspace, server.uri)
    (before,) = all_runs(store)
    assert before.info.status == "KILLED"
    pause.unlink()
    pause = pause_after(workspace, 8)
    second = train()
    wait_until(second, has_epoch(store, 7))
    server.kill()
    kill(second)
    pause.unlink()
    server.start()
    finished(train())
    sync(workspace, server.uri)  # a server just begun may not answer in the time it is waited for
    (run,) = all_runs(store)
    assert run.info.run_id == before.info.run_id
    expect_as_undisturbed(store, run, undisturbed, 2)
