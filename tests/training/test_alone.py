"""One training at a time in a folder."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cfmvc.errors import CheckpointError
from cfmvc.training.alone import alone

HOLD = """
import sys, time
from pathlib import Path
from cfmvc.training.alone import alone
with alone(Path(sys.argv[1]), "a folder"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(lock: Path) -> Iterator["subprocess.Popen[str]"]:
    """Let another process hold a lock, until its input ends or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_told_which_process_is_there(tmp_path: Path) -> None:
    lock = tmp_path / "made" / "x.lock"
    with another(lock) as process:
        said = rf"a folder: process {process.pid} of \S+ trains"
        with pytest.raises(CheckpointError, match=said), alone(lock, "a folder"):
            pass
        assert lock.exists()
        process.communicate(input="")
        assert not lock.exists()
    with alone(lock, "a folder"):
        assert lock.exists()
    assert not lock.exists()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with another(lock) as process:
        process.kill()
        process.wait()
        with alone(lock, "a folder"):
            pass


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lock = tmp_path / "file" / "x.lock"
    with pytest.raises(CheckpointError, match="cannot be written"), alone(lock, "a folder"):
        pass
