"""The thread that sends imports MLflow beside others; nobody may meet half a module."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

_CODE = """
import sys
from pathlib import Path
from cfmvc.tracking.delivery import Delivery
from cfmvc.tracking.sender import Sender
from cfmvc.tracking.spool import Spool

Sender(Spool(Path(sys.argv[1]), None), Path(sys.argv[1]), Delivery()).start()
half = [n for n in ("polars",) if getattr(sys.modules.get(n), "Series", None) is None]
print("half", *half)
"""


def test_polars_is_whole_before_the_thread_begins(tmp_path: Path) -> None:
    pytest.importorskip("polars")
    command = [sys.executable, "-c", _CODE, str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["half"]
