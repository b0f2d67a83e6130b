"""A small project with all that a chain is made of: git, DVC, MLflow and a registered version.

DVC hashes real files and writes a real ``dvc.lock``; only the work of the stages is left out.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from cfmvc.files import json_text, md5_of_file
from cfmvc.registry.config import RegisterConfig
from cfmvc.registry.register import register_model
from cfmvc.tracking import stage_run
from cfmvc.tracking.lineage import DATA_TAG, SPLIT_TAG
from tests.conftest import PROJECT
from tests.forked import ForkedModule
from tests.registry.conftest import make_bundle
from tests.tracking.conftest import CONFIG, PARAMS

RAW, PREPARED = "data/raw/cells.h5ad", "data/prepared/cells.h5ad"
EVALUATION = {"model": {"pearson_delta": 0.8}, "control": {"pearson_delta": 0.0}}
_PARAMS = f"data: {{path: {RAW}}}\nflow: {{lr: 1e-3, n_epochs: 3}}\nregister: {{name: cfmvc}}\n"
_DVC_YAML = """
stages:
  prepare:
    cmd: python prepare.py
    deps: [prepare.py, "${data.path}"]
    params: [data]
    outs: [data/prepared/cells.h5ad, data/prepared/split.json, results/runs/prepare.json]
  train_vae:
    cmd: python train_vae.py
    deps: [train_vae.py, data/prepared/cells.h5ad]
    outs: [results/runs/train_vae.json]
    metrics: [results/train_vae.json]
  train_flow:
    cmd: python train_flow.py
    deps: [train_flow.py, cfmvc/flow, data/prepared/cells.h5ad]
    params: [flow]
    outs: [models/flow, results/runs/train_flow.json]
    metrics: [results/train_flow.json]
  evaluate:
    cmd: python evaluate.py
    deps: [models/flow]
    outs: [results/runs/evaluate.json]
    metrics: [results/evaluate.json]
  register:
    cmd: python register.py
    deps:
      - cfmvc
      - models/flow
      - results/evaluate.json
      - results/train_vae.json
      - results/train_flow.json
    params: [register]
    outs: [results/registered.json]
"""
_IGNORED = """
.cfmvc/
mlflow.db*
mlartifacts/
__pycache__/
/data/raw/*.h5ad
/data/prepared/
/models/
/results/
"""
_DATABASE_PATHS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


def new_project(folder: Path, template_store: Path, name: str = "cfmvc") -> Path:
    """Make a project whose version 1 has a whole chain, in the store in force."""
    folder.mkdir()
    shutil.copy(template_store, folder / "mlflow.db")
    code = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "cfmvc", folder / "cfmvc", ignore=code)
    texts = {
        "dvc.yaml": _DVC_YAML,
        "params.yaml": _PARAMS.replace("name: cfmvc", f"name: {name}") + PARAMS,
        ".gitignore": _IGNORED,
    }
    texts |= {"prepare.py": "# cells in, cells out\n"}
    texts |= dict.fromkeys(("train_vae.py", "train_flow.py"), "# learns\n")
    for file, text in texts.items():
        (folder / file).write_text(text)
    (folder / "elsewhere").symlink_to("/etc/hostname")  # which proves nothing, and hinders nothing
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    (folder / "data" / "raw").mkdir(parents=True)
    add_data(folder, "the cells")
    commit(folder, "start")
    prepare(folder)
    train(folder, "train_vae", {}, n_vetoed=2)
    make_bundle(folder / "models" / "flow", seed=0)
    train(folder, "train_flow", {"flow.lr": 0.001, "flow.n_epochs": 3}, n_vetoed=1)
    evaluate(folder, EVALUATION)
    (folder / "results/registered.json").write_text(str(register(folder, name)))
    dvc_commit(folder, "register")
    return folder


def add_data(folder: Path, cells: str) -> None:
    (folder / RAW).write_text(cells)
    run(folder, "dvc", "add", "--quiet", RAW)


def prepare(folder: Path) -> None:
    with stage_run("prepare", folder, CONFIG) as tracker:
        cells, split = folder / PREPARED, folder / "data/prepared/split.json"
        cells.parent.mkdir(exist_ok=True)
        cells.write_text((folder / RAW).read_text() + ", split")
        record = {"sha256": "5" * 64, "data_md5": md5_of_file(folder / RAW)}
        split.write_text(json.dumps(record))
        tracker.set_tags({SPLIT_TAG: record["sha256"], DATA_TAG: record["data_md5"]})
        tracker.write_link(folder / "results/runs/prepare.json")
    dvc_commit(folder, "prepare")


def train(folder: Path, stage: str, params: dict[str, float], n_vetoed: int) -> None:
    """Write down what a training would: vetoed updates as its output, memory as a metric."""
    with stage_run(stage, folder, CONFIG) as tracker:
        tracker.log_params(params)
        tracker.log_metrics({"peak_rss_gib": 1.0 + n_vetoed}, step=0)
        (folder / f"results/{stage}.json").write_text(json_text({"nan_steps": n_vetoed}))
        tracker.write_link(folder / f"results/runs/{stage}.json")
    dvc_commit(folder, stage)


def evaluate(folder: Path, evaluation: dict[str, dict[str, float]]) -> None:
    with stage_run("evaluate", folder, CONFIG) as tracker:
        (folder / "results/evaluate.json").write_text(json_text(evaluation))
        tracker.write_link(folder / "results/runs/evaluate.json")
    dvc_commit(folder, "evaluate")


def register(folder: Path, name: str = "cfmvc") -> int:
    """Register what lies there, and return the version."""
    with stage_run("register", folder, CONFIG) as tracker:
        tracker.log_params({"register.name": name})
        evaluation = json.loads((folder / "results/evaluate.json").read_text())
        config = RegisterConfig(name=name, alias="candidate")
        return register_model(folder / "models/flow", evaluation, config, tracker, folder).version


def copy_of(project: Path, folder: Path) -> Path:
    """Copy a project with its store, whose files are the copy's then."""
    shutil.copytree(project, folder, symlinks=True)
    with sqlite3.connect(folder / "mlflow.db") as database:
        for table, column in _DATABASE_PATHS.items():
            change = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            database.execute(change, (str(project), str(folder)))
    database.close()
    return folder


def commit(folder: Path, message: str, *options: str) -> None:
    run(folder, "git", "add", "--all", ":(exclude)dvc.lock")
    run(folder, "git", "commit", "--quiet", "--allow-empty", "--message", message, *options)


def dvc_commit(folder: Path, stage: str) -> None:
    """Let DVC take what lies there as the stage's outputs."""
    run(folder, "dvc", "commit", "--quiet", "--force", stage)


def run(folder: Path, *command: str) -> str:
    """Run a program of this environment in the project; DVC is forked, and runs no stage here."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "GIT", "DVC"))}
    environment = kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.org",
    }
    if command[0] == "dvc":
        process = ForkedModule("dvc", command[1:], folder, environment, is_split=True)
        said, errors = process.communicate()
        assert process.returncode == 0, f"{command}: {said}{errors}"
        return said
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
