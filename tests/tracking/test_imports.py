"""The thread that sends imports MLflow while the stage works; nobody may meet half a module."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

_CODE = """
import sys
from pathlib import Path
from tests.tracking.conftest import CONFIG
from cfmvc.tracking import stage_run

with stage_run("vae", Path(sys.argv[1]), CONFIG):
    half = [n for n in ("polars",) if getattr(sys.modules.get(n), "Series", None) is None]
print("half", *half)
"""


def test_polars_is_whole_before_the_thread_begins(workspace: Path) -> None:
    pytest.importorskip("polars")
    command = [sys.executable, "-c", _CODE, str(workspace)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["half"]
