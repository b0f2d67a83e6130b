"""Disks that are really full, or really read-only; for who may mount none, the nearest to them."""

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from benchmarks.soak.process import Running

_SIZE = 4 << 20  # of the small disk: a few checkpoints
_LARGEST_FILE = 50_000  # less than a checkpoint, where only the size of files can be limited


@cache
def can_mount() -> bool:
    """Return whether this process may mount a disk."""
    with tempfile.TemporaryDirectory() as name:
        if not _mount("-t", "tmpfs", "-o", "size=1m", "cfmvc-soak", name):
            return False
        subprocess.run(["umount", name], check=True)
    return True


class SmallDisk:
    """A disk of a few megabytes, mounted at a folder.

    Parameters
    ----------
    folder
        Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / ".ballast"

    def fill(self) -> bool:
        """Leave no byte free; False: an old checkpoint may go, and its room must be taken too."""
        with suppress(OSError), self._ballast.open("ab", buffering=0) as stream:
            for size in (65536, 512, 1):
                with suppress(OSError):
                    while stream.write(bytes(size)):
                        pass
        return False

    def empty(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)

    def set_read_only(self, is_read_only: bool) -> bool:
        """Allow no writing, or allow it again; False while a file is being written."""
        mode = "ro" if is_read_only else "rw"
        return _mount("-o", f"remount,{mode}", str(self.folder))


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount a small disk at a folder, which is made, for the time of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _mount("-t", "tmpfs", "-o", f"size={_SIZE}", "cfmvc-soak", str(folder)):
        raise OSError(f"{folder}: no disk can be mounted there")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def limit_files(process: Running) -> None:
    """Let a process write no large file any more, as on a full disk."""
    with suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))


def can_protect() -> bool:
    """Return whether a folder's mode keeps this user from writing to it; root's does not."""
    return os.geteuid() != 0


def _mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    except OSError:
        return False
