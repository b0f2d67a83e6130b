"""Real MLflow stores, and stages as real processes."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from cfmvc.tracking import TrackingConfig
from cfmvc.tracking.store import Store
from tests.conftest import PROJECT, once_for_all
from tests.forked import ForkedModule

CONFIG = TrackingConfig(uri=None, experiment="cfmvc", flush_seconds=60)
PARAMS = "tracking:\n  uri: null\n  experiment: cfmvc\n  flush_seconds: 60\n"
_OUTSIDE = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "CFMVC_PARENT_RUN", "DVC_EXP_NAME")


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no setting of the developer's shell decide where tests write."""
    for name in _OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def template_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an SQLite file with MLflow's tables: making one takes seconds, copying none."""
    with once_for_all(tmp_path_factory, "template") as (folder, is_made):
        if not is_made:
            # MLflow's default experiment keeps its files below the folder one is in.
            with chdir(folder):
                Store.connect(f"sqlite:///{folder / 'mlflow.db'}", folder)
    return folder / "mlflow.db"


@pytest.fixture
def workspace(tmp_path: Path, template_store: Path) -> Path:
    """Return a project's folder with a store that has its tables."""
    shutil.copy(template_store, tmp_path / "mlflow.db")
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


@pytest.fixture
def store(workspace: Path) -> Store:
    """Return the store of the workspace."""
    return Store.connect(f"sqlite:///{workspace / 'mlflow.db'}", workspace)


Start = Callable[..., ForkedModule]


@pytest.fixture
def start_stage(workspace: Path) -> Iterator[Start]:
    """Return a function that starts ``tests.tracking.a_stage`` as a process of its own."""
    started = []

    def start(stage: str, behaviour: str, **environment: str) -> ForkedModule:
        words = (str(workspace), stage, behaviour)
        environment = {**os.environ, **environment}
        process = ForkedModule("tests.tracking.a_stage", words, PROJECT, environment, is_split=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def runs_of(store: Store) -> dict[str, Any]:
    """Return the runs of a store by name, the newest of each."""
    runs = store.find_runs(store.experiment_ids(), "")
    return {run.info.run_name: run for run in sorted(runs, key=lambda run: run.info.start_time)}


def steps_of(store: Store, run: Any, metric: str) -> list[tuple[int, float]]:
    """Return step and value of each point of a metric."""
    history = store.client.get_metric_history(run.info.run_id, metric)
    return [(point.step, point.value) for point in history]


def artifact_text(store: Store, run: Any, path: str) -> str:
    """Return an artifact's text."""
    return Path(store.client.download_artifacts(run.info.run_id, path)).read_text()
