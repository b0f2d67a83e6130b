"""PostgreSQL as the store itself, without a server before it."""

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cfmvc.cli.app import app
from cfmvc.errors import TrackingError
from cfmvc.registry.fetch import fetch_bundle
from cfmvc.registry.hashes import sha256_of_folder
from cfmvc.registry.register import register_model
from cfmvc.tracking import find_run, read_link, stage_run
from cfmvc.tracking.config import shareable_uri
from cfmvc.tracking.store import Store
from tests.conftest import PROJECT
from tests.forked import ForkedModule
from tests.registry.test_register import EVALUATION, REGISTER
from tests.servers.postgres import PASSWORD, Postgres, name_of
from tests.tracking.conftest import CONFIG, runs_of

MUCH_LESS_SECONDS = 20.0  # than MLflow's own patience with a database


def test_runs_and_versions_are_kept_there(
    workspace: Path, bundle: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres)
    with stage_run("register", workspace, CONFIG) as tracker:
        made = register_model(bundle, EVALUATION, REGISTER, tracker)
        tracker.write_link(workspace / "link.json")
    store = Store.connect(postgres, workspace)
    version = store.client.get_model_version_by_alias("cfmvc", "candidate")
    assert int(version.version) == made.version == 1
    # what is written down has no password, and leads to the run all the same
    assert PASSWORD not in json.dumps(made.as_json()) + (workspace / "link.json").read_text()
    run = find_run(read_link(workspace / "link.json"), workspace)
    assert run is not None
    assert (run.info.run_id, run.info.status) == (version.run_id, "FINISHED")
    fetched = fetch_bundle("models:/cfmvc@candidate", workspace)
    assert sha256_of_folder(fetched) == sha256_of_folder(bundle)


def test_what_it_has_missed_is_sent_later(
    workspace: Path,
    postgres: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    nobody = f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:9/runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    with stage_run("vae", workspace, CONFIG) as tracker:
        tracker.log_metrics({"loss": 1.0}, 0)
    done = CliRunner().invoke(app, ["sync", "--project", str(workspace)])
    assert done.exit_code == TrackingError.exit_code
    said = done.output + capfd.readouterr().err
    assert "postgresql+psycopg://127.0.0.1:9/runs: Connection refused" in said
    assert PASSWORD not in said
    done = CliRunner().invoke(app, ["sync", "--project", str(workspace), "--to", postgres])
    assert done.stdout == "sent    vae: 5 records\n"
    assert runs_of(Store.connect(postgres, workspace))["vae"].info.status == "FINISHED"


@pytest.mark.slow
def test_several_processes_open_one_fresh_database_at_once(
    workspace: Path, fresh_postgres: str, postgres_server: Postgres
) -> None:
    """Also after one was killed amid the making of the tables."""

    def start(name: str) -> ForkedModule:
        words = (str(workspace), name, "finish")
        environment = {**os.environ, "MLFLOW_TRACKING_URI": fresh_postgres}
        return ForkedModule("tests.tracking.a_stage", words, PROJECT, environment)

    killed = start("killed")
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    while postgres_server.execute(tables, name_of(fresh_postgres)) == [(0,)]:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.communicate()

    names = ("one", "two")
    for process in [start(name) for name in names]:
        said, _ = process.communicate()
        assert (process.returncode, said) == (0, "")
    runs = runs_of(Store.connect(fresh_postgres, workspace))
    assert {runs[name].info.status for name in names} == {"FINISHED"}


def test_a_wrong_password_is_said_at_once_and_never_shown(workspace: Path, postgres: str) -> None:
    start = time.monotonic()
    with pytest.raises(TrackingError, match="password authentication failed for user") as refused:
        Store.connect(postgres.replace(PASSWORD, "wrong-one"), workspace)
    assert time.monotonic() - start < MUCH_LESS_SECONDS
    assert "wrong-one" not in str(refused.value)


def test_a_driver_that_is_not_installed_is_named(workspace: Path, postgres: str) -> None:
    with pytest.raises(TrackingError, match=r"no driver pg8000; pip install 'cfmvc\[team\]'"):
        Store.connect(postgres.replace("+psycopg", "+pg8000"), workspace)


def test_a_password_among_the_options_is_not_shared() -> None:
    uri = "postgresql+psycopg://host/runs?user=me&password=secret&sslmode=require"
    shared = "postgresql+psycopg://host/runs?user=me&password=***&sslmode=require"
    assert shareable_uri(uri, Path("/p")) == shared
