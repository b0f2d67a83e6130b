"""A project of its own for each test: the checkout's files, a git repository, small parameters."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import PROJECT, once_for_all
from tests.forked import ForkedModule
from tests.registry import a_project
from tests.tracking.conftest import template_store

__all__ = ["template_store"]

# Sizes at which a stage takes seconds; everything else is as shipped.
SMALL = {
    "simulate.n_cells": 400,
    "simulate.n_genes": 60,
    "simulate.n_batches": 2,
    "simulate.n_cell_types": 2,
    "simulate.n_perturbations": 2,
    "simulate.n_combinations": 1,
    "simulate.n_interactive": 0,
    "vae.n_epochs": 3,
    "vae.hidden_dim": 32,
    "vae.validate_every": 1,
    "flow.n_epochs": 3,
    "flow.validate_every": 1,
    "generate.n_cells": 40,
    "evaluate.n_components": 5,
    "evaluate.n_ceiling_splits": 2,
    "evaluate.n_draws": 3,
    "evaluate.n_bootstrap": 200,
    "compute.n_threads": 1,
}
_MODULES = {"cfmvc": "tests.cli.a_command", "dvc": "dvc", "mlflow": "mlflow"}
STAGES = ("simulate", "prepare", "train_vae", "train_flow", "generate", "evaluate", "register")


@dataclass
class Project:
    """A checkout in which commands are run as a user would."""

    folder: Path
    home: Path

    @property
    def env(self) -> dict[str, str]:
        """A fresh home, and the environment's own programs first."""
        # Without a file of bytecode each stage would compile the whole package.
        outside = ("MLFLOW", "DVC", "GIT", "PYTHONDONTWRITEBYTECODE")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(outside)}
        return kept | {
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "OMP_NUM_THREADS": "1",
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@example.org",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@example.org",
        }

    def start(self, *command: str, **options: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env | options,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *command: str, expect: int = 0, **options: str) -> str:
        """Run a command to its end and return what it printed; forked where that is possible.

        A stage finds its parent by the command line of DVC's process, which a forked one lacks.
        """
        process: ForkedModule | subprocess.Popen[str]
        program, *words = command
        runs_stages = program == "dvc" and words[:1] in (["repro"], ["exp"])
        if program in _MODULES and not runs_stages:
            environment = self.env | options
            process = ForkedModule(_MODULES[program], words, self.folder, environment)
        else:
            process = self.start(*command, **options)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == expect, f"{' '.join(command)}:\n{output}"
        return output

    def change(self, values: dict[str, object]) -> None:
        """Change values of params.yaml."""
        yaml = YAML()
        path = self.folder / "params.yaml"
        params = yaml.load(path)
        for name, value in values.items():
            section, key = name.split(".")
            assert key in params[section], name
            params[section][key] = value
        yaml.dump(params, path)

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", message)

    def outs(self) -> dict[str, str]:
        """Return the md5 of every stage output in dvc.lock, but for the links to MLflow runs."""
        lock = YAML(typ="safe").load(self.folder / "dvc.lock")
        return {
            out["path"]: out["md5"]
            for stage in lock["stages"].values()
            for out in stage.get("outs", [])
            if not out["path"].startswith("results/runs/")
        }


def new_project(
    folder: Path, values: dict[str, object], template_store: Path | None = None
) -> Project:
    """Copy what git would show of the checkout into ``folder``, with other parameters.

    With a store that has its tables it takes a first stage some seconds less.
    """
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listing.stdout.splitlines():
        source, target = PROJECT / name, folder / "project" / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    _copy_bytecode(folder / "project")
    if template_store is not None:
        shutil.copy(template_store, folder / "project" / "mlflow.db")
    home = folder / "home"
    home.mkdir()
    project = Project(folder / "project", home)
    project.run("git", "init", "--quiet")
    project.change(values)
    project.commit("the checkout, with small parameters")
    return project


def _copy_bytecode(target: Path) -> None:
    """Copy what Python has compiled; sources keep their times, so that it holds for them."""
    for package in ("cfmvc", "pipelines"):
        for folder in (PROJECT / package).rglob("__pycache__"):
            for file in folder.glob("*.pyc"):
                copied = target / file.relative_to(PROJECT)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, copied)


def copy_of(project: Project, folder: Path) -> Project:
    """Copy a project with all that was built in it, to be changed."""
    a_project.copy_of(project.folder, folder / "project")
    shutil.copytree(project.home, folder / "home")
    return Project(folder / "project", folder / "home")


def stages_run(output: str) -> list[str]:
    """Return the stages of the pipeline that ``dvc repro`` has run.

    ``tune`` is none of them: it looks each time whether it was asked for.
    """
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path, SMALL)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, template_store: Path) -> Project:
    """A small project whose pipeline has run once, for tests that only look at it.

    The first process of the suite that needs it builds it for all; only tests/pipelines/test_graph
    runs DVC in it, which would not let two in at once.
    """
    with once_for_all(tmp_path_factory, "built") as (folder, is_made):
        if not is_made:
            new_project(folder, SMALL, template_store).run("dvc", "repro")
    return Project(folder / "project", folder / "home")
