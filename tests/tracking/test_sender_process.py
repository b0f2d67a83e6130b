"""The process that sends for a stage: no MLflow in the stage, and it ends as the stage does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cfmvc.tracking.delivery import Delivery
from cfmvc.tracking.leftovers import sync
from cfmvc.tracking.sender_process import SenderProcess
from cfmvc.tracking.spool import Spool, spools
from cfmvc.tracking.store import Store
from tests.conftest import PROJECT
from tests.tracking.a_stage import N_STEPS
from tests.tracking.conftest import runs_of, steps_of

SOON = 20.0


class AStage:
    """``tests.tracking.a_stage`` as a Python of its own, in which nobody has imported MLflow."""

    def __init__(self, workspace: Path, behaviour: str) -> None:
        self.workspace = workspace
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.tracking.a_stage", str(workspace), "vae", behaviour],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, word: str) -> None:
        """Wait until it has said something, and a process sends for it."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{word}\n"

    @property
    def sender(self) -> psutil.Process:
        """The process that sends for it."""
        (found,) = psutil.Process(self.process.pid).children()
        assert "cfmvc.tracking.sender_worker" in found.cmdline()
        return found

    def end(self) -> str:
        """Wait for its end, and return what it has said on stderr."""
        return self.process.communicate(timeout=120)[1]


@pytest.fixture
def two_halves(workspace: Path) -> Iterator[AStage]:
    stage = AStage(workspace, "two_halves")
    stage.wait_for("half")
    yield stage
    stage.process.kill()
    stage.end()


@pytest.fixture
def waiting(workspace: Path) -> Iterator[AStage]:
    stage = AStage(workspace, "wait")
    stage.wait_for("ready")
    yield stage
    stage.process.kill()
    stage.end()


def test_a_stage_sends_all_without_mlflow_of_its_own(two_halves: AStage, store: Store) -> None:
    sender = two_halves.sender
    mapped = {Path(file.path).name for file in psutil.Process(two_halves.process.pid).memory_maps()}
    assert not any("sqlalchemy" in name for name in mapped)
    (two_halves.workspace / "go").touch()
    assert two_halves.end() == ""
    run = runs_of(store)["vae"]
    assert run.info.status == "FINISHED"
    assert [step for step, _ in steps_of(store, run, "loss")] == list(range(N_STEPS))
    assert spools(two_halves.workspace) == []
    assert not sender.is_running()


def test_it_ends_with_a_stage_that_is_killed(waiting: AStage, store: Store) -> None:
    sender = waiting.sender
    waiting.process.kill()
    sender.wait(SOON)
    assert runs_of(store)["vae"].info.status == "RUNNING"
    report = sync(waiting.workspace, store.uri)
    assert [run["stage"] for run in report.sent] == ["vae"]
    run = runs_of(store)["vae"]
    assert run.info.status == "KILLED"
    assert len(steps_of(store, run, "loss")) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_of_them_is_the_stages(
    waiting: AStage, store: Store, number: signal.Signals
) -> None:
    """A terminal's Ctrl-C goes to a group, a scheduler's SIGTERM to every process of a job."""
    sender = waiting.sender
    sender.send_signal(number)
    os.killpg(waiting.process.pid, number)
    assert "records kept" not in waiting.end()
    assert runs_of(store)["vae"].info.status == "KILLED"
    sender.wait(SOON)


def test_a_sender_that_is_killed_stops_no_stage(two_halves: AStage, store: Store) -> None:
    two_halves.sender.kill()
    (two_halves.workspace / "go").touch()
    said = two_halves.end()
    assert two_halves.process.returncode == 0
    assert "the process that sends has died" in said
    assert "`cfmvc sync` sends them" in said
    sync(two_halves.workspace, store.uri)
    run = runs_of(store)["vae"]
    assert run.info.status == "FINISHED"
    assert [step for step, _ in steps_of(store, run, "loss")] == list(range(N_STEPS))


@pytest.fixture
def sender() -> Iterator[SenderProcess]:
    sender = SenderProcess()
    yield sender
    sender.end()


def test_a_spool_that_is_gone_is_said(sender: SenderProcess, workspace: Path) -> None:
    delivery = Delivery()
    spool = Spool(workspace / "nowhere", None)  # type: ignore[arg-type]
    sender.finish(sender.send(spool, workspace, delivery))
    assert "nowhere is gone" in str(delivery.wait_for_rest(SOON))


def test_what_comes_after_its_end_is_said_to_fail(sender: SenderProcess, workspace: Path) -> None:
    sender.end()
    assert not sender.is_alive
    delivery, start = Delivery(), time.monotonic()
    spool = Spool(workspace / "any", None)  # type: ignore[arg-type]
    sender.finish(sender.send(spool, workspace, delivery))
    assert delivery.wait_for_rest(SOON) == "the process that sends has died"
    assert time.monotonic() - start < SOON / 2
