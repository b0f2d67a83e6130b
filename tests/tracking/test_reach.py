"""A store that is dead, mute or cannot be opened is found out soon, and never waited for."""

import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfmvc.tracking import stage_run
from cfmvc.tracking.reach import expect_reachable
from cfmvc.tracking.spool import spools
from tests.tracking.conftest import CONFIG

# `flush_seconds` of CONFIG is 60, and MLflow's own patience with a database longer.
MUCH_LESS_SECONDS = 20.0


@pytest.fixture
def mute() -> Iterator[int]:
    """Return a port that takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listening:
        yield listening.getsockname()[1]


def stage_seconds(workspace: Path, uri: str) -> float:
    config = CONFIG.model_copy(update={"uri": uri})
    start = time.monotonic()
    with stage_run("vae", workspace, config) as tracker:
        tracker.log_metrics({"loss": 1.0}, 0)
    return time.monotonic() - start


@pytest.mark.parametrize("what", ["mute server", "folder", "text", "below a file"])
def test_a_dead_store_does_not_slow_a_stage(
    workspace: Path, mute: int, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    (workspace / "folder.db").mkdir()
    (workspace / "text.db").write_text("no database, but more than one page of it\n" * 1000)
    uri, reason = {
        "mute server": (f"http://127.0.0.1:{mute}", "nothing said in 2 s"),
        "folder": ("sqlite:///folder.db", "unable to open database file"),
        "text": ("sqlite:///text.db", "file is not a database"),
        "below a file": ("sqlite:///text.db/mlflow.db", "unable to make a database in"),
    }[what]
    assert stage_seconds(workspace, uri) < MUCH_LESS_SECONDS
    (line,) = capsys.readouterr().err.splitlines()
    assert "5 records kept" in line
    assert reason in line or "no answer yet" in line
    assert len(spools(workspace)) == 1


def test_a_database_server_that_is_not_there_is_found_out() -> None:
    with pytest.raises(ConnectionRefusedError):
        expect_reachable("postgresql+psycopg2://user:secret@127.0.0.1:9/runs")


def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    """Of a busy file, and of a file that is yet to be made, which the question does not make."""
    file = tmp_path / "mlflow.db"
    expect_reachable(f"sqlite:///{file}")
    expect_reachable(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
    assert list(tmp_path.iterdir()) == []
    blocker = sqlite3.connect(file, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    expect_reachable(f"sqlite:///{file}")
    blocker.close()


def test_what_only_mlflow_knows_how_to_reach_is_left_to_it() -> None:
    for uri in ("databricks://profile", "postgresql:///socket", "plugin://somewhere"):
        expect_reachable(uri)
