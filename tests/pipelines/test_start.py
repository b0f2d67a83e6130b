"""A short start of the stages: what they do not import, asked of a fresh process."""

import subprocess
import sys

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
