"""One training at a time in a folder: two would remove each other's checkpoints."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cfmvc.errors import CheckpointError


@contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock as long as the block lasts, or the process.

    The system frees it with the process, however that ends: where it can be had, whoever had it
    before is dead.

    Parameters
    ----------
    lock
        File of the lock; made here, and removed at the end.
    what
        What is locked, for the error's message.

    Raises
    ------
    CheckpointError
        If another process holds it; says which.
    """
    guard = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        guard.acquire(timeout=0)
    except Timeout:
        raise CheckpointError(
            f"{what}: {_holder(lock)} trains there, and one training at a time may: wait for it, "
            "or stop it, and start again"
        ) from None
    except OSError as error:
        raise _unwritable(lock, error) from error
    try:
        _sign(lock)
        yield
    finally:
        lock.unlink(missing_ok=True)  # still locked: nobody else's file is removed
        guard.release()


def _sign(lock: Path) -> None:
    """Say who has it; a disk may be full for these few bytes although the lock could be made."""
    try:
        lock.write_text(f"process {os.getpid()} of {socket.gethostname()}")
    except OSError as error:
        raise _unwritable(lock, error) from error


def _unwritable(lock: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{lock}: cannot be written: {error.strerror or error}. Nothing was trained yet: "
        "make room, or let the folder be written to, and start again"
    )


def _holder(lock: Path) -> str:
    try:
        return lock.read_text() or "another process"
    except OSError:
        return "another process"
