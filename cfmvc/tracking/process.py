"""Who runs: processes that can be recognised later, on the same host and after a restart."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

import psutil

# The start of a process is computed from the clock at boot, which time services correct a little.
_CLOCK_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, told from others that had its number before or after.

    Parameters
    ----------
    host, pid
        Where, and its number there.
    created
        Start of the process, in seconds since 1970.
    """

    host: str
    pid: int
    created: float

    @classmethod
    def of(cls, process: psutil.Process) -> "ProcessIdentity":
        """Describe a process of this host."""
        return cls(socket.gethostname(), process.pid, round(process.create_time(), 2))

    @classmethod
    def own(cls) -> "ProcessIdentity":
        """Describe this process."""
        return cls.of(psutil.Process())

    @classmethod
    def parse(cls, text: str) -> "ProcessIdentity | None":
        """Read ``host:pid:created``; None where the text is something else."""
        host, _, rest = text.partition(":")
        pid, _, created = rest.partition(":")
        try:
            return cls(host, int(pid), float(created))
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.created:.2f}"

    def is_same(self, other: "ProcessIdentity") -> bool:
        """Return whether both are one process."""
        near = abs(self.created - other.created) <= _CLOCK_TOLERANCE_SECONDS
        return (self.host, self.pid) == (other.host, other.pid) and near

    def is_here(self) -> bool:
        """Return whether it belongs to this host: of others nothing is known."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Return whether it still runs; only meaningful on its own host."""
        try:
            process = psutil.Process(self.pid)
            return self.is_same(self.of(process)) and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True


def dvc_ancestor() -> ProcessIdentity | None:
    """Return the topmost ancestor that is a DVC command, which its stages have in common."""
    found = None
    for process in _ancestors():
        try:
            if names_dvc(process.cmdline()):
                found = ProcessIdentity.of(process)
        except psutil.Error:
            continue
    return found


def dvc_command() -> list[str] | None:
    """Return the words of the DVC command that this process is a stage of; None: of none."""
    for process in _ancestors():
        try:
            arguments = process.cmdline()
        except psutil.Error:
            continue
        if names_dvc(arguments):
            return arguments
    return None


def names_dvc(arguments: list[str]) -> bool:
    """Return whether a command line is DVC's: ``dvc ...``, ``python .../dvc ...``, ``-m dvc``."""
    if not arguments:
        return False
    program, *rest = arguments
    if PurePath(program).stem == "dvc":
        return True
    if not PurePath(program).name.startswith("python"):
        return False
    while rest and rest[0].startswith("-") and rest[0] != "-m":
        rest = rest[1:]  # the interpreter's own switches
    return rest[:2] == ["-m", "dvc"] or (bool(rest) and PurePath(rest[0]).stem == "dvc")


def experiment_name() -> str:
    """Return the DVC experiment that this process belongs to, or nothing."""
    return os.environ.get("DVC_EXP_NAME", "")


def _ancestors() -> Iterator[psutil.Process]:
    try:
        yield from psutil.Process().parents()
    except psutil.Error:
        return
