"""One training at a time in a folder: two would remove each other's checkpoints."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cfmvc.errors import CheckpointError


@contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock as long as the block lasts, or the process.

    The system frees it with the process, however that ends: where it can be had, whoever had it
    before is dead. A file system that has no locks is taken as it is.

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
    try:
        stream = _locked(lock)
    except BlockingIOError:
        raise CheckpointError(
            f"{what}: {_holder(lock)} trains there, and one training at a time may: wait for it, "
            "or stop it, and start again"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{lock}: cannot be written: {error.strerror or error}") from error
    with stream:
        stream.truncate(0)
        stream.write(f"process {os.getpid()} of {socket.gethostname()}".encode())
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # still locked: nobody else's file is removed


def _locked(lock: Path) -> BinaryIO:
    """Return the locked file, the one that others find under its name."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        stream = lock.open("ab", buffering=0)
        try:
            _lock(stream)
            if _is_at(lock, stream):
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()  # its holder has just removed it


def _lock(stream: BinaryIO) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # no locks on this file system
        return


def _is_at(lock: Path, stream: BinaryIO) -> bool:
    try:
        return os.path.samestat(lock.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _holder(lock: Path) -> str:
    try:
        return lock.read_text() or "another process"
    except OSError:
        return "another process"
