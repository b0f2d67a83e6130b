"""Addresses, and a fresh store under several processes."""

import os
from functools import partial
from pathlib import Path

import pytest

from cfmvc.errors import ConfigError, TrackingError
from cfmvc.tracking import TrackingConfig, stage_run
from cfmvc.tracking.config import absolute_uri, home_of, shareable_uri, tracking_uri
from cfmvc.tracking.store import Store, _all_pages
from tests.conftest import PROJECT
from tests.forked import ForkedModule
from tests.tracking.conftest import CONFIG, PARAMS, runs_of


@pytest.mark.parametrize(
    ("given", "absolute"),
    [
        (None, "sqlite:////p/mlflow.db"),
        ("sqlite:///a/b.db", "sqlite:////p/a/b.db"),
        ("sqlite:////x/b.db", "sqlite:////x/b.db"),
        ("http://host:5000/", "http://host:5000"),
        ("postgresql+psycopg://u:p@h/db", "postgresql+psycopg://u:p@h/db"),
    ],
)
def test_addresses_hold_in_any_folder(given: str | None, absolute: str) -> None:
    assert absolute_uri(given, Path("/p")) == absolute


@pytest.mark.parametrize("folder", ["mlruns", "/data/mlruns", "file:///data/mlruns"])
def test_a_folder_is_no_store(folder: str) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        absolute_uri(folder, Path("/p"))


def test_the_environment_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrackingConfig(uri="http://configured", experiment="e", flush_seconds=1)
    assert tracking_uri(config, Path("/p")) == "http://configured"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert tracking_uri(config, Path("/p")) == "http://environment"


def test_temporary_copies_of_dvc_use_their_projects_store() -> None:
    copy = Path("/p/.dvc/tmp/exps/standalone/tmpx1")
    assert home_of(copy) == home_of(Path("/p")) == Path("/p")
    assert absolute_uri(None, copy) == "sqlite:////p/mlflow.db"


def test_a_project_below_its_repository_owns_the_runs_of_dvcs_copies(tmp_path: Path) -> None:
    copy = tmp_path / "repo/.dvc/tmp/exps/standalone/tmpabc/sub/project"
    copy.mkdir(parents=True)
    (copy.parents[1] / ".dvc").mkdir()
    assert home_of(copy) == tmp_path / "repo/sub/project"


@pytest.mark.parametrize(
    ("uri", "shared"),
    [
        ("sqlite:////p/mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:////x/mlflow.db", "sqlite:////x/mlflow.db"),
        ("https://me:secret@host:1/path", "https://host:1/path"),
    ],
)
def test_shared_addresses_have_no_password_and_no_home(uri: str, shared: str) -> None:
    assert shareable_uri(uri, Path("/p")) == shared


def test_several_processes_may_open_one_fresh_store_at_once(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    names = ("one", "two", "three")
    processes = [
        ForkedModule("tests.tracking.a_stage", (str(tmp_path), name, "finish"), PROJECT, os.environ)
        for name in names
    ]
    for process in processes:
        said, _ = process.communicate()
        assert (process.returncode, said) == (0, "")
    store = Store.connect(absolute_uri(None, tmp_path), tmp_path)
    runs = runs_of(store)
    assert set(runs) == set(names)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_all_pages_of_a_search_are_read(store: Store) -> None:
    names = {f"experiment {n}" for n in range(5)}
    for name in names:
        store.client.create_experiment(name)
    found = list(_all_pages(partial(store.client.search_experiments, max_results=2)))
    assert names <= {experiment.name for experiment in found}
    assert len(found) == len({experiment.experiment_id for experiment in found})


def test_a_deleted_experiment_is_not_brought_back_behind_the_users_back(
    workspace: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.client.delete_experiment(store.experiment_id("cfmvc"))
    with stage_run("vae", workspace, CONFIG):
        pass
    assert "mlflow experiments restore --experiment-id" in capsys.readouterr().err


def test_a_store_that_does_not_answer_is_an_error_with_its_address(tmp_path: Path) -> None:
    with pytest.raises(
        TrackingError, match=r"http://127\.0\.0\.1:9: no answer: Connection refused"
    ):
        Store.connect("http://u:secret@127.0.0.1:9", tmp_path)
