"""A registered model: one version a model, whole or not there, and usable from anywhere."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cfmvc.cli.predicting import bundle_folder
from cfmvc.errors import TrackingError
from cfmvc.models import load_bundle
from cfmvc.registry.config import RegisterConfig
from cfmvc.registry.fetch import fetch_bundle
from cfmvc.registry.hashes import sha256_of_folder
from cfmvc.registry.register import RegisteredVersion, register_model
from cfmvc.stages import predict_cells
from cfmvc.tracking import stage_run
from cfmvc.tracking.store import Store
from tests.conftest import PROJECT
from tests.registry.conftest import make_bundle
from tests.tracking.conftest import CONFIG, PARAMS, runs_of

REGISTER = RegisterConfig(name="cfmvc", alias="candidate")
EVALUATION = {
    "model": {"pearson_delta": 0.8, "energy_distance": 0.1},
    "control": {"pearson_delta": 0.0, "energy_distance": 0.6},
}
CONDITIONS = pd.DataFrame(
    {
        "perturbation": ["a", "control", "a+b"],
        "batch": ["x", "y", "x"],
        "cell_type": ["p", "q", "q"],
        "n_cells": [3, 2, 1],
    }
)


def register(
    workspace: Path, bundle: Path, evaluation: dict[str, Any] = EVALUATION
) -> RegisteredVersion:
    with stage_run("register", workspace, CONFIG) as tracker:
        return register_model(bundle, evaluation, REGISTER, tracker)


def test_the_version_carries_its_figures_and_where_it_came_from(
    workspace: Path, store: Store, bundle: Path
) -> None:
    with stage_run("register", workspace, CONFIG, {"cfmvc.git_commit": "abc"}) as tracker:
        made = register_model(bundle, EVALUATION, REGISTER, tracker)
    version = store.client.get_model_version_by_alias("cfmvc", "candidate")
    assert int(version.version) == made.version == 1
    run = runs_of(store)["register"]
    assert version.run_id == run.info.run_id
    expected = {
        "cfmvc.bundle_sha256": sha256_of_folder(bundle),
        "cfmvc.git_commit": "abc",
        "cfmvc.uid": tracker.uid,
        "metric.pearson_delta": "0.8",
        "metric.energy_distance": "0.1",
    }
    assert version.tags.items() >= expected.items()
    assert not [name for name in version.tags if name.startswith(("mlflow.", "cfmvc.stage"))]
    assert version.description == (
        "On the held-out conditions: pearson_delta 0.8, energy_distance 0.1"
    )
    model = store.client.get_logged_model(version.tags["cfmvc.model_id"])
    assert {m.key: m.value for m in model.metrics} == EVALUATION["model"]
    assert run.outputs.model_outputs[0].model_id == model.model_id
    assert str(workspace) not in str(made.as_json())


def test_the_same_model_is_the_same_version(workspace: Path, store: Store, bundle: Path) -> None:
    first = register(workspace, bundle)
    assert register(workspace, bundle) == first
    other = register(workspace, make_bundle(workspace / "models" / "other", seed=1))
    assert other.version == 2
    assert register(workspace, bundle, {"pearson_delta": 0.9}).version == 3
    # the alias follows what was registered last, an old version included
    assert register(workspace, bundle) == first
    assert store.client.get_model_version_by_alias("cfmvc", "candidate").version == 1
    assert len(store.client.search_model_versions("name = 'cfmvc'")) == 3


_STEPS = [
    "create_registered_model",
    "create_logged_model",
    "log_model_artifacts",
    "log_outputs",
    "log_batch",
    "finalize_logged_model",
    "create_model_version",
    "set_registered_model_alias",
]


class Killed(BaseException):
    """What a test puts in the place of SIGKILL."""


@pytest.mark.parametrize("step", _STEPS)
def test_a_kill_after_any_step_leaves_one_whole_version(
    workspace: Path,
    store: Store,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    from mlflow import MlflowClient

    real = getattr(MlflowClient, step)

    def killed(client: Any, *arguments: Any, **options: Any) -> Any:
        done = real(client, *arguments, **options)
        if threading.current_thread() is threading.main_thread():
            raise Killed
        return done  # the sender's thread uses the same client

    with stage_run("register", workspace, CONFIG) as tracker:
        tracker.wait_for_run(60)
    with monkeypatch.context() as patched, stage_run("register", workspace, CONFIG) as tracker:
        tracker.wait_for_run(60)
        patched.setattr(MlflowClient, step, killed)
        with pytest.raises(Killed):
            register_model(bundle, EVALUATION, REGISTER, tracker)
        patched.undo()
    assert register(workspace, bundle).version == 1
    assert len(store.client.search_model_versions("name = 'cfmvc'")) == 1
    assert store.client.get_model_version_by_alias("cfmvc", "candidate").version == 1
    models = store.client.search_logged_models(store.experiment_ids())
    assert [str(model.status) for model in models] == ["READY"]
    assert {m.key for m in models[0].metrics} == set(EVALUATION["model"])
    assert sha256_of_folder(fetch_bundle("models:/cfmvc@candidate", workspace)) == (
        sha256_of_folder(bundle)
    )


_USE = """
import json, sys
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/cfmvc@candidate")
conditions = pd.read_json(sys.argv[1])
model.predict(conditions, params={"seed": 7}).to_json(sys.argv[2], orient="split")
model.predict(conditions, params={"seed": 7, "use_mean": True}).to_json(sys.argv[3], orient="split")
import cfmvc
print(cfmvc.__file__)
"""


def test_it_predicts_in_another_folder_without_our_checkout(
    workspace: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    register(workspace, bundle)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    CONDITIONS.to_json(elsewhere / "conditions.json")
    names = ["conditions.json", "counts.json", "means.json"]
    done = subprocess.run(
        [sys.executable, "-c", _USE, *names],
        cwd=elsewhere,
        env={
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "MLFLOW_TRACKING_URI": f"sqlite:///{workspace / 'mlflow.db'}",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.splitlines()[-1]).is_relative_to(PROJECT)
    expected = predict_cells(load_bundle(bundle), CONDITIONS, seed=7, n_steps=20).cells
    for name, layer in (("counts.json", "counts"), ("means.json", "mean")):
        table = pd.read_json(elsewhere / name, orient="split")
        assert list(table.columns[:3]) == ["perturbation", "batch", "cell_type"]
        assert table["perturbation"].tolist() == ["a"] * 3 + ["control"] * 2 + ["a+b"]
        genes = table[list(expected.var_names)].to_numpy()
        values = expected.layers[layer]
        values = values.toarray() if layer == "counts" else values
        assert genes == pytest.approx(values, rel=1e-5)


def test_loading_executes_no_pickle(workspace: Path, store: Store, bundle: Path) -> None:
    register(workspace, bundle)
    version = store.client.get_model_version_by_alias("cfmvc", "candidate")
    model = store.client.get_logged_model(version.tags["cfmvc.model_id"])
    folder = Path(model.artifact_location.removeprefix("file://"))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {
        *("", ".json", ".py", ".safetensors", ".txt", ".typed", ".yaml"),
        *(".css", ".html", ".js"),  # the page of an evaluation
    }  # fmt: skip
    # a pickle of protocol 2 or later begins with 0x80 and its number, a zipped one with PK
    begins = {path.read_bytes()[:2] for path in files}
    assert not any(begin[:1] == b"\x80" or begin == b"PK" for begin in begins)
    assert "loader_module: mlflow.pyfunc.loaders.code_model" in (folder / "MLmodel").read_text()
    assert not list(folder.rglob("__pycache__"))


def test_signature_example_and_requirements_are_there(
    workspace: Path, store: Store, bundle: Path
) -> None:
    from mlflow.models import Model

    register(workspace, bundle)
    version = store.client.get_model_version_by_alias("cfmvc", "candidate")
    model = store.client.get_logged_model(version.tags["cfmvc.model_id"])
    folder = Path(model.artifact_location.removeprefix("file://"))
    signature = Model.load(str(folder)).signature
    required = [column.name for column in signature.inputs if column.required]
    assert required == ["perturbation", "batch", "cell_type", "n_cells"]
    assert "gene-11" in signature.outputs.input_names()
    assert {param.name: param.default for param in signature.params} == {
        "seed": 0,
        "use_mean": False,
        "n_steps": 20,
        "method": "euler",
    }
    needed = (folder / "requirements.txt").read_text()
    for name in ("torch==", "safetensors==", "anndata==", "mlflow=="):
        assert name in needed
    assert "dvc" not in needed


def test_the_command_line_takes_a_registered_model(
    workspace: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(workspace, bundle)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace / 'mlflow.db'}")
    fetched = load_bundle(bundle_folder("models:/cfmvc/1"))
    assert fetched.gene_names == load_bundle(bundle).gene_names
    with pytest.raises(TrackingError, match="models:/cfmvc@nobody: cannot be fetched"):
        bundle_folder("models:/cfmvc@nobody")


def test_the_store_of_params_is_asked(
    workspace: Path, bundle: Path, template_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(template_store, workspace / "team.db")
    config = CONFIG.model_copy(update={"uri": "sqlite:///team.db"})
    with stage_run("register", workspace, config) as tracker:
        register_model(bundle, EVALUATION, REGISTER, tracker)
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("uri: null", "uri: sqlite:///team.db"))
    monkeypatch.chdir(workspace)
    fetched = bundle_folder("models:/cfmvc@candidate")
    assert sha256_of_folder(fetched) == sha256_of_folder(bundle)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")  # goes first
    with pytest.raises(TrackingError, match="cannot be fetched"):
        bundle_folder("models:/cfmvc@candidate")


@pytest.mark.parametrize("has_params", [True, False])
def test_reading_makes_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_params: bool
) -> None:
    if has_params:
        (tmp_path / "params.yaml").write_text(PARAMS)
    remedy = "`dvc repro` makes it" if has_params else "run this in the project's folder"
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrackingError, match=rf"no store: there is no .*mlflow\.db; {remedy}"):
        bundle_folder("models:/cfmvc@candidate")
    assert sorted(tmp_path.iterdir()) == before


def test_a_registry_that_does_not_answer_says_what_to_do(
    workspace: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cfmvc.registry.register._WAIT_SECONDS", 1.0)
    config = CONFIG.model_copy(update={"uri": "http://127.0.0.1:9"})
    with (
        pytest.raises(TrackingError, match=r"(?s)Connection refused.*run the stage again"),
        stage_run("register", workspace, config) as tracker,
    ):
        register_model(bundle, EVALUATION, REGISTER, tracker)
