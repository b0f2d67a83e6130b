"""Every way in which a process ends is told apart."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cfmvc.tracking import stage_run
from cfmvc.tracking.process import ProcessIdentity
from cfmvc.tracking.store import Store
from cfmvc.tracking.sweep import sweep
from tests.conftest import PROJECT
from tests.tracking.conftest import CONFIG, Start, artifact_text, runs_of, steps_of


def fail(workspace: Path) -> None:
    with stage_run("vae", workspace, CONFIG) as tracker:
        tracker.log_metrics({"loss": 1.0}, 0)
        raise RuntimeError("no flux")


def test_an_exception_fails_the_run_and_is_passed_on(workspace: Path, store: Store) -> None:
    with pytest.raises(RuntimeError, match="no flux"):
        fail(workspace)
    run = runs_of(store)["vae"]
    assert run.info.status == "FAILED"
    assert run.data.tags["cfmvc.error"] == "RuntimeError: no flux"
    assert run.data.metrics == {"loss": 1.0}
    assert 'raise RuntimeError("no flux")' in artifact_text(store, run, "traceback.txt")


@pytest.mark.parametrize(
    ("behaviour", "code", "status"), [("fail", 1, "FAILED"), ("exit3", 3, "FAILED")]
)
def test_a_process_that_fails(
    start_stage: Start, store: Store, behaviour: str, code: int, status: str
) -> None:
    process = start_stage("vae", behaviour)
    process.communicate()
    assert process.returncode == code
    run = runs_of(store)["vae"]
    assert run.info.status == status
    assert len(steps_of(store, run, "loss")) == 5


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_process_that_is_stopped(
    workspace: Path, store: Store, sent: signal.Signals, code: int
) -> None:
    """A whole Python: how it ends at Ctrl-C is its own doing."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.tracking.a_stage", str(workspace), "vae", "wait"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        # A suite that runs in the background of a script ignores Ctrl-C, and so would this.
        preexec_fn=_hear_interrupts,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(sent)
    process.communicate(timeout=120)
    assert process.returncode == code
    run = runs_of(store)["vae"]
    assert run.info.status == "KILLED"
    assert len(steps_of(store, run, "loss")) == 5


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_next_start_ends_what_a_kill_left_running(
    workspace: Path, start_stage: Start, store: Store
) -> None:
    process = start_stage("vae", "wait")
    process.wait_for("ready\n")
    process.kill()
    process.wait()
    assert runs_of(store)["vae"].info.status == "RUNNING"
    with stage_run("flow", workspace, CONFIG) as tracker:
        tracker.wait_for_run(60)
        while runs_of(store)["vae"].info.status == "RUNNING":
            pass
    runs = runs_of(store)
    assert runs["vae"].info.status == "KILLED"
    assert runs["flow"].info.status == "FINISHED"
    assert len(steps_of(store, runs["vae"], "loss")) == 5


@pytest.fixture
def running(store: Store) -> dict[str, str]:
    """Runs that say RUNNING: of this process, of a dead one here and elsewhere, of a stranger."""
    own = ProcessIdentity.own()
    dead = max(psutil.pids()) + 1000
    owners = {
        "own": str(own),
        "dead": f"{own.host}:{dead}:1.0",
        "number given anew": f"{own.host}:{own.pid}:{own.created - 500:.2f}",
        "other host": f"{own.host}-b:{dead}:1.0",
    }
    experiment_id = store.experiment_id("cfmvc")
    ids = {
        name: store.client.create_run(
            experiment_id, tags={"cfmvc.process": process}, run_name=name
        ).info.run_id
        for name, process in owners.items()
    }
    ids["stranger"] = store.client.create_run(experiment_id, run_name="stranger").info.run_id
    return ids


def test_only_runs_of_this_hosts_dead_processes_are_swept(
    store: Store, running: dict[str, str]
) -> None:
    killed = sweep(store)
    assert {run["stage"] for run in killed} == {"dead", "number given anew"}
    status = {name: store.client.get_run(run_id).info.status for name, run_id in running.items()}
    assert status == {
        "own": "RUNNING",
        "dead": "KILLED",
        "number given anew": "KILLED",
        "other host": "RUNNING",
        "stranger": "RUNNING",
    }
    assert sweep(store) == []
