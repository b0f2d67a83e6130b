"""What stages do not import, asked of a fresh process; and what a fresh home does not have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.mlflow_entry import as_options, sign_experiments
from pipelines.tune import is_asked_for
from tests.conftest import PROJECT


def test_stages_that_compute_no_gradient_wait_for_no_torch() -> None:
    modules = ("simulate", "prepare", "evaluate", "tune")
    code = (
        f"import sys; from pipelines import {', '.join(modules)}\n"
        "print(*{'torch', 'mlflow', 'optuna'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("command", "is_so"),
    [
        ("dvc repro", False),
        ("dvc repro tune", True),
        ("dvc repro dvc.yaml:tune", True),
        ("dvc repro results/tune/trials.csv", True),
        ("dvc exp run tune", True),
        ("dvc exp exec-run --infofile .dvc/tmp/exps/run/a/a.run", False),
    ],
)
def test_a_study_is_carried_out_where_it_is_named(command: str, is_so: bool) -> None:
    assert is_asked_for(command.split()) == is_so


def test_switches_of_a_study_are_passed_on_as_switches() -> None:
    settings = ["n_trials=5", "register=true", "promote=false", "test=false", "study=true"]
    options = ["--n-trials", "5", "--register", "--no-test", "--study", "true"]
    assert as_options(settings) == options
    assert as_options(["regster=false"]) == ["--regster", "false"], "for the command to refuse"


@pytest.mark.parametrize("known", ["nobody", "git config", "environment"])
def test_experiments_are_signed_where_nobody_has_told_git_a_name(
    known: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        for key in ("NAME", "EMAIL"):
            monkeypatch.delenv(f"GIT_{role}_{key}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    expected = "Ada"
    if known == "git config":
        (tmp_path / ".gitconfig").write_text("[user]\nname = Ada\nemail = ada@lab\n")
    elif known == "environment":
        monkeypatch.setenv("GIT_COMMITTER_NAME", "Ada")
    else:
        expected = "cfmvc"
    monkeypatch.setattr(os, "environ", os.environ.copy())
    sign_experiments()
    subprocess.run(["git", "init", "-q"], check=True, env=os.environ)
    commit = ["git", "commit", "-q", "--allow-empty", "-m", "experiment"]
    subprocess.run(commit, check=True, env=os.environ)
    shown = ["git", "log", "-1", "--format=%cn"]
    done = subprocess.run(shown, check=True, capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == expected
