"""Which run a training belongs to: killed and started again, it goes on in the run that it had.

A small file beside the checkpoints says so, from the first one on until the training is done.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from filelock import Timeout

from cfmvc.errors import TrackingError
from cfmvc.files import read_json, write_json
from cfmvc.tracking.config import shareable_uri
from cfmvc.tracking.spool import RunHeader, Spool, spool_root

_FILE = "run.json"
# Another process may just be sending what the killed one has left; it gives up sooner than that.
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class _KeptRun:
    """The run of a training that is not done.

    Parameters
    ----------
    uid
        The run's tag ``cfmvc.uid``.
    uri
        Address of its store, without passwords.
    fingerprint
        Of the training's data, parameters and code.
    n_resumed
        How often it was gone on with.
    """

    uid: str
    uri: str
    fingerprint: str
    n_resumed: int = 0


class KeptOn(Protocol):
    """Says which run a process goes on with."""

    def open_spool(self, home: Path, header: RunHeader) -> Spool:
        """Return the spool of the run that goes on, or of the new one that ``header`` tells of."""

    def forget(self) -> None:
        """Take note that the run has ended well."""


class SharedRun:
    """A run that several processes have one after the other, each of which may be killed.

    Parameters
    ----------
    uid
        Name of the run.
    is_new
        Whether this process is the first one.
    """

    def __init__(self, uid: str, is_new: bool) -> None:
        self._uid, self._is_new = uid, is_new

    def open_spool(self, home: Path, header: RunHeader) -> Spool:
        """Return a spool for the run.

        Raises
        ------
        TrackingError
            If another process has it.
        """
        header = replace(header, uid=self._uid, n_resumed=0 if self._is_new else 1)
        if self._is_new:
            return Spool.create(spool_root(home), header)
        spool = _taken_over(spool_root(home), header)
        if spool is None:
            raise TrackingError(f"the run {self._uid} is being written by another process")
        return spool

    def forget(self) -> None:
        """Do nothing: another process may go on."""


class Resumption:
    """The run of the training that works in a folder.

    Who has it holds the lock of that folder (:func:`cfmvc.training.alone.alone`): the process that
    had the run before is dead then, on whatever host it was.

    Parameters
    ----------
    folder
        Of its checkpoints; the run is written down there.
    fingerprint
        Of the training's data, parameters and code: a run of another is not gone on with.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._file = folder / _FILE
        self._fingerprint = fingerprint
        self._run: _KeptRun | None = None

    def open_spool(self, home: Path, header: RunHeader) -> Spool:
        """Return the spool of the run that was left, or of the new one that ``header`` tells of."""
        uri, left = shareable_uri(header.uri, home), self._left()
        if left is not None and left.uri == uri:
            run = replace(left, n_resumed=left.n_resumed + 1)
            again = replace(header, uid=run.uid, n_resumed=run.n_resumed)
            spool = _taken_over(spool_root(home), again)
            if spool is not None:
                self._run = run
                write_json(self._file, asdict(run))
                return spool
        self._run = _KeptRun(header.uid, uri, self._fingerprint)
        return Spool.create(spool_root(home), header)

    def keep(self) -> None:
        """Write the run down; called before the first checkpoint is there to be gone on from."""
        if self._run is not None:  # otherwise nobody keeps track
            write_json(self._file, asdict(self._run))

    def forget(self) -> None:
        """Remove the file: the training is done."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)
            self._file.parent.rmdir()

    def _left(self) -> _KeptRun | None:
        try:
            left = _KeptRun(**read_json(self._file))
        except (OSError, ValueError, TypeError):
            return None
        return left if left.fingerprint == self._fingerprint else None


def _taken_over(root: Path, header: RunHeader) -> Spool | None:
    """Return the spool of a dead process's run as this process's own; None if it is not to be had.

    What that process had not sent yet is still in it, and goes first. If it was sent, and the run
    closed, the spool is a fresh one, and finds its run in the store.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = root / header.uid
    try:
        with Spool(folder, header).lock.acquire(timeout=_PATIENCE_SECONDS):
            before = Spool.open(folder)
            if before is not None:
                header = replace(header, started_ms=before.header.started_ms)
            spool = Spool.create(root, header)
            spool.append({"kind": "resumed"})
            return spool
    except Timeout:
        return None
