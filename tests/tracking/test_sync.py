"""A server that dies in the middle, and ``cfmvc sync`` afterwards."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cfmvc.cli.app import app
from cfmvc.errors import ConfigError
from cfmvc.tracking import stage_run
from cfmvc.tracking.shipment import Shipment
from cfmvc.tracking.spool import RunHeader, Spool, spool_root, spools
from cfmvc.tracking.store import Store
from tests.servers.mlflow_server import Server
from tests.tracking.a_stage import N_STEPS
from tests.tracking.conftest import CONFIG, Start, artifact_text, runs_of, steps_of


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, template_store: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(template_store, folder / "mlflow.db")
    server = Server(folder)
    server.start()
    yield server
    server.kill()


def run_sync(workspace: Path, *options: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["sync", "--json", "--project", str(workspace), *options])
    return done.exit_code, json.loads(done.stdout)


def wait_for_half(server: Server, workspace: Path) -> None:
    store = Store.connect(server.uri, workspace)
    while "vae" not in (runs := runs_of(store)) or not runs["vae"].data.metrics:
        pass


@pytest.mark.slow
def test_a_server_killed_in_the_middle_loses_and_doubles_nothing(
    workspace: Path, server: Server, start_stage: Start
) -> None:
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("uri: null", f"uri: {server.uri}"))
    stage = start_stage("vae", "two_halves")
    stage.wait_for("half\n")
    wait_for_half(server, workspace)
    server.kill()
    (workspace / "go").touch()
    said = stage.communicate()[1]
    assert stage.returncode == 0
    assert len(said.splitlines()) == 1
    assert "records kept" in said

    code, report = run_sync(workspace)
    assert code == 5
    assert [run["stage"] for run in report["left"]] == ["vae"]

    server.start()
    code, report = run_sync(workspace)
    assert (code, report["left"]) == (0, [])
    assert [run["stage"] for run in report["sent"]] == ["vae"]
    store = Store.connect(server.uri, workspace)
    assert len(list(store.find_runs(store.experiment_ids(), ""))) == 1
    run = runs_of(store)["vae"]
    assert run.info.status == "FINISHED"
    assert steps_of(store, run, "loss") == [(n, 1 / (n + 1)) for n in range(N_STEPS)]
    assert steps_of(store, run, "nan_events") == [(3, 1.0), (77, 2.0)]
    assert len(artifact_text(store, run, "events/nan.jsonl").splitlines()) == 2
    assert run_sync(workspace) == (0, {"sent": [], "left": [], "killed": [], "at_work": []})
    assert spools(workspace) == []


def test_what_a_killed_process_had_not_sent_is_sent(
    workspace: Path, store: Store, start_stage: Start
) -> None:
    """Its store was unreachable, and then it was killed: the run ends KILLED, with its figures."""
    stage = start_stage("vae", "two_halves", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    stage.wait_for("half\n")
    code, report = run_sync(workspace)
    assert (code, report["left"]) == (0, [])  # a stage at work is no failure
    assert report["at_work"][0]["reason"].startswith("still running")
    stage.kill()
    stage.communicate()
    assert run_sync(workspace)[0] == 5
    code, report = run_sync(workspace, "--to", "sqlite:///mlflow.db")
    assert code == 0
    assert [run["stage"] for run in report["sent"]] == ["vae"]
    run = runs_of(store)["vae"]
    assert run.info.status == "KILLED"
    assert run.info.end_time >= run.info.start_time
    assert len(steps_of(store, run, "loss")) == N_STEPS // 2
    assert len(artifact_text(store, run, "events/nan.jsonl").splitlines()) == 1


@pytest.mark.parametrize("n_resumed", [0, 1])
def test_the_records_of_a_run_that_somebody_has_deleted_go_to_another_one(
    workspace: Path, store: Store, n_resumed: int
) -> None:
    """Deleted in MLflow's page while its process was dead; others' leftovers are sent as well."""
    header = RunHeader("u1", "vae", store.uri, "cfmvc", f"{os.uname().nodename}:1:1.0", 1000)
    spool = Spool.create(spool_root(workspace), replace(header, n_resumed=n_resumed))
    spool.append({"kind": "metrics", "step": 0, "values": {"loss": 1.0}})
    shipment = Shipment(spool, store)
    shipment.send()
    store.client.delete_run(shipment.run_id)
    spool.append({"kind": "metrics", "step": 1, "values": {"loss": 0.5}})
    spool.append({"kind": "end", "status": "FAILED", "tags": {}})
    code, report = run_sync(workspace)
    while code:  # a first look finds that it is gone
        code, report = run_sync(workspace)
    assert [run["stage"] for run in report["sent"]] == ["vae"]
    run = runs_of(store)["vae"]
    assert run.info.run_id != shipment.run_id
    assert run.info.status == "FAILED"
    assert steps_of(store, run, "loss") == [(0, 1.0), (1, 0.5)]
    assert spools(workspace) == []
    assert not list(spool_root(workspace).parent.glob("rejected/*"))


def test_a_deleted_run_of_which_all_is_sent_holds_nobody_up(workspace: Path, store: Store) -> None:
    header = RunHeader("u1", "vae", store.uri, "cfmvc", f"{os.uname().nodename}:1:1.0", 1000)
    spool = Spool.create(spool_root(workspace), header)
    spool.append({"kind": "metrics", "step": 0, "values": {"loss": 1.0}})
    shipment = Shipment(spool, store)
    shipment.send()
    store.client.delete_run(shipment.run_id)
    assert run_sync(workspace)[0] == 0
    assert spools(workspace) == []
    found = store.find_run_anywhere("u1")
    assert found is not None
    assert found.info.lifecycle_stage == "deleted"


def test_the_records_of_a_run_whose_parent_somebody_has_deleted_are_sent(
    workspace: Path, store: Store
) -> None:
    here = f"{os.uname().nodename}:1:1.0"
    header = RunHeader("u1", "vae", store.uri, "cfmvc", here, 1000, session=here)
    spool = Spool.create(spool_root(workspace), header)
    spool.append({"kind": "metrics", "step": 0, "values": {"loss": 1.0}})
    shipment = Shipment(spool, store)
    shipment.send()
    parent = store.client.get_run(shipment.run_id).data.tags["mlflow.parentRunId"]
    store.client.delete_run(parent)
    spool.append({"kind": "resumed", "n_resumed": 1})
    spool.append({"kind": "end", "status": "FINISHED", "tags": {}})
    assert run_sync(workspace)[0] == 0
    assert spools(workspace) == []
    assert runs_of(store)["vae"].info.status == "FINISHED"
    assert store.client.get_run(parent).info.lifecycle_stage == "deleted"


def test_records_of_a_folder_that_is_no_project_are_sent(workspace: Path, store: Store) -> None:
    """As of `cfmvc fit --track`, which takes the shipped parameters there."""
    header = RunHeader("u1", "fit", store.uri, "cfmvc", f"{os.uname().nodename}:1:1.0", 1000)
    spool = Spool.create(spool_root(workspace), header)
    spool.append({"kind": "metrics", "step": 0, "values": {"loss": 1.0}})
    (workspace / "params.yaml").unlink()
    code, report = run_sync(workspace)
    assert (code, [run["stage"] for run in report["sent"]]) == (0, ["fit"])
    shutil.rmtree(spool_root(workspace))
    done = CliRunner().invoke(app, ["sync", "--project", str(workspace)])
    assert isinstance(done.exception, ConfigError), "nothing was ever kept here"


def test_what_another_host_has_written_is_left_alone_unless_forced(
    workspace: Path, store: Store
) -> None:
    header = RunHeader("u1", "vae", store.uri, "cfmvc", "elsewhere:1:1.0", 1000)
    running = Spool.create(spool_root(workspace), header)
    running.append({"kind": "metrics", "step": 0, "values": {"loss": 1.0}})
    with stage_run("flow", workspace, CONFIG) as tracker:
        tracker.wait_for_run(60)
    code, report = run_sync(workspace)
    assert (code, report["sent"], report["left"], report["killed"]) == (0, [], [], [])
    (found,) = report["at_work"]
    assert "of another host, elsewhere" in found["reason"]
    assert "cfmvc sync --force" in found["reason"]
    assert set(runs_of(store)) == {"flow"}
    running.append({"kind": "metrics", "step": 1, "values": {"loss": 0.5}})
    code, report = run_sync(workspace, "--force")
    assert (code, report["at_work"]) == (0, [])
    assert [run["stage"] for run in report["sent"]] == ["vae"]
    assert steps_of(store, runs_of(store)["vae"], "loss") == [(0, 1.0), (1, 0.5)]


def test_the_next_start_sends_what_is_left(
    workspace: Path, store: Store, start_stage: Start
) -> None:
    header = RunHeader("u1", "vae", store.uri, "cfmvc", f"{os.uname().nodename}:1:1.0", 1000)
    left = Spool.create(spool_root(workspace), header)
    for step in range(4):
        left.append({"kind": "metrics", "step": step, "values": {"loss": float(step)}})
    left.append({"kind": "end", "status": "FAILED", "tags": {"cfmvc.error": "E"}})
    stage = start_stage("flow", "wait")
    stage.wait_for("ready\n")
    while len(spools(workspace)) > 1:
        pass
    run = runs_of(store)["vae"]
    assert (run.info.status, run.data.tags["cfmvc.error"]) == ("FAILED", "E")
    assert run.info.start_time == 1000
    assert steps_of(store, run, "loss") == [(step, float(step)) for step in range(4)]
