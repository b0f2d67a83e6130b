"""One training at a time in a folder."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from cfmvc.errors import CheckpointError
from cfmvc.training.alone import alone
from tests.forked import PROCESSES, forked


def hold(lock: Path, held: Event, enough: Event) -> None:
    with alone(lock, "a folder"):
        held.set()
        enough.wait()


@contextmanager
def another(lock: Path) -> Iterator[tuple[BaseProcess, Event]]:
    """Let another process hold a lock, until the event or until it is killed."""
    held, enough = PROCESSES.Event(), PROCESSES.Event()
    process = forked(hold, lock, held, enough)
    process.start()
    assert held.wait(60)
    yield process, enough
    process.kill()
    process.join()


def test_the_second_is_told_which_process_is_there(tmp_path: Path) -> None:
    lock = tmp_path / "made" / "x.lock"
    with another(lock) as (process, enough):
        said = rf"a folder: process {process.pid} of \S+ trains"
        with pytest.raises(CheckpointError, match=said), alone(lock, "a folder"):
            pass
        assert lock.exists()
        enough.set()
        process.join()
        assert not lock.exists()
    with alone(lock, "a folder"):
        assert lock.exists()
    assert not lock.exists()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with another(lock) as (process, _):
        process.kill()
        process.join()
        with alone(lock, "a folder"):
            pass


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lock = tmp_path / "file" / "x.lock"
    said = "cannot be written: .*Nothing was trained yet: make room, or let the folder be written"
    with pytest.raises(CheckpointError, match=said), alone(lock, "a folder"):
        pytest.fail("nothing is trained where nothing can be kept")


@pytest.fixture
def no_room() -> Iterator[None]:
    """Let files be made and no byte be written, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("no_room")
def test_a_disk_too_full_for_the_name_is_said(tmp_path: Path) -> None:
    """The lock itself takes no room; the first bytes in it do."""
    lock = tmp_path / "folder.lock"
    with (
        pytest.raises(CheckpointError, match="cannot be written: File too large"),
        alone(lock, "a folder"),
    ):
        pytest.fail("nothing is trained where nothing can be kept")
    assert not lock.exists()
