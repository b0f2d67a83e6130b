"""What a run has to say, on disk first: one JSON line a call, in the order of the calls.

A folder ``.cfmvc/spool/<uid>`` holds the run's header (``run.json``), its records
(``events.jsonl``), copies of its artifacts, and how far MLflow has acknowledged them
(``sent.json``). Whoever sends it holds ``<uid>.lock``; a dead process holds nothing.
"""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from cfmvc.files import read_json, write_json

_HEADER, _RECORDS, _SENT = "run.json", "events.jsonl", "sent.json"
_LOCK, _DONE = ".lock", ".done"
_CHUNK_BYTES = 1 << 18
_LONGEST_END_BYTES = 1 << 16

Record = dict[str, Any]


@dataclass(frozen=True)
class RunHeader:
    """What is known of a run when it starts.

    Parameters
    ----------
    uid
        Name of the run before MLflow knows it; its tag ``cfmvc.uid``.
    stage
        Name of the stage.
    uri, experiment
        Where it is to be kept.
    process
        Who runs it.
    started_ms
        Milliseconds since 1970.
    given_parent
        MLflow run that the stage was given as its parent; not ours to end.
    session
        Process whose stages share a parent run of ours; None: no parent.
    session_name
        What tells parallel sessions of one process apart: the DVC experiment.
    tags
        Tags that the run carries from its creation.
    n_resumed
        How often its training was started again and went on.
    """

    uid: str
    stage: str
    uri: str
    experiment: str
    process: str
    started_ms: int
    given_parent: str | None = None
    session: str | None = None
    session_name: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    n_resumed: int = 0


@dataclass(frozen=True)
class Acknowledged:
    """How far a store has taken a spool.

    Parameters
    ----------
    offset
        Bytes of the records that need not be sent again.
    run_id
        The MLflow run, once it exists.
    uri
        Of the store that holds it.
    n_records
        Records that were taken.
    """

    offset: int = 0
    run_id: str | None = None
    uri: str | None = None
    n_records: int = 0


class Spool:
    """The folder of one run. Appending is safe from several threads."""

    def __init__(self, folder: Path, header: RunHeader) -> None:
        self.folder = folder
        self.header = header
        # Beside the folder: locking a spool that was just removed must not bring it back.
        self.lock = FileLock(folder.with_name(folder.name + _LOCK), thread_local=False)
        self._guard = threading.Lock()
        self._stream: Any = None
        self._is_torn = False
        self._has_warned = False

    @classmethod
    def create(cls, root: Path, header: RunHeader) -> "Spool":
        """Make the folder of a run below ``root``, or make one that is there this process's."""
        spool = cls(root / header.uid, header)
        spool.folder.mkdir(parents=True, exist_ok=True)
        # The address may hold a password, so nobody else reads it.
        spool.folder.chmod(0o700)
        write_json(spool.folder / _HEADER, asdict(header))
        return spool

    @classmethod
    def open(cls, folder: Path) -> "Spool | None":
        """Open what a process has left; None if it was killed before its header was whole."""
        try:
            return cls(folder, RunHeader(**read_json(folder / _HEADER)))
        except (OSError, ValueError, TypeError):
            return None

    def append(self, record: Record) -> None:
        """Write one record; trouble with the disk is said once, and never stops the training."""
        line = json.dumps({"ms": now_ms(), **record}, default=plain).encode() + b"\n"
        with self._guard:
            try:
                if self._stream is None:
                    self._stream = (self.folder / _RECORDS).open("ab", buffering=0)
                    self._is_torn = self._is_torn or _ends_torn(self.folder / _RECORDS)
                # A line that a full disk, or a kill, cut short must not swallow the next one.
                whole = b"\n" + line if self._is_torn else line
                self._is_torn = self._stream.write(whole) != len(whole)
                if self._is_torn:
                    raise OSError("the disk took a part of the line only")
            except OSError as error:
                self._is_torn = True
                self.warn(error)

    def warn(self, error: OSError) -> None:
        """Say once that records are lost."""
        if not self._has_warned:
            self._has_warned = True
            print(f"tracking: cannot write to {self.folder}: {error}", file=sys.stderr)

    def close(self) -> None:
        """Give the file back; nothing is appended afterwards."""
        with self._guard:
            if self._stream is not None:
                self._stream.close()
                self._stream = None

    def pending(self, offset: int) -> Iterator[tuple[list[Record], int]]:
        """Yield chunks of whole records after ``offset``, each with the offset behind it."""
        path = self.folder / _RECORDS
        if not path.exists():
            return
        with path.open("rb") as stream:
            stream.seek(offset)
            while lines := stream.readlines(_CHUNK_BYTES):
                is_whole = lines[-1].endswith(b"\n")
                if not is_whole:
                    lines.pop()  # still being written, or cut off by a kill
                if lines:
                    offset += sum(map(len, lines))
                    yield [record for record in map(_parsed, lines) if record is not None], offset
                if not is_whole:
                    return  # its rest may be there by now, and is no line

    def count_pending(self) -> int:
        """Return how many records wait to be sent."""
        return sum(len(records) for records, _ in self.pending(self.acknowledged().offset))

    def has_ended(self) -> bool:
        """Return whether the last record is the run's end."""
        path = self.folder / _RECORDS
        if not path.exists():
            return False
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _LONGEST_END_BYTES))
            lines = stream.read().splitlines()
        last = _parsed(lines[-1]) if lines else None
        return last is not None and last["kind"] == "end"

    def acknowledged(self) -> Acknowledged:
        """Return how far the records were taken."""
        try:
            return Acknowledged(**read_json(self.folder / _SENT))
        except (OSError, ValueError, TypeError):
            return Acknowledged()

    def acknowledge(self, state: Acknowledged) -> None:
        """Remember how far the records were taken."""
        write_json(self.folder / _SENT, asdict(state))

    @property
    def rejected(self) -> Path:
        """File of what the store refused; it outlives the spool."""
        return self.folder.parent.parent / "rejected" / f"{self.header.uid}.jsonl"

    def reject(self, what: str, reason: str) -> None:
        """Keep a note of what the store refuses for good, so that the rest can pass."""
        self.rejected.parent.mkdir(exist_ok=True)
        note = {"run": self.header.stage, "what": what[:500], "reason": reason[:500]}
        with self.rejected.open("a") as stream:
            stream.write(json.dumps(note) + "\n")

    def remove(self) -> None:
        """Delete the folder; a kill in between leaves nothing that could be sent twice."""
        self.close()
        done = self.folder.with_name(self.folder.name + _DONE)
        os.replace(self.folder, done)
        shutil.rmtree(done, ignore_errors=True)
        Path(self.lock.lock_file).unlink(missing_ok=True)

    def is_there(self) -> bool:
        """Return whether nobody has removed it in the meantime."""
        return (self.folder / _HEADER).exists()


def spool_root(home: Path) -> Path:
    """Return the folder of all spools of a project."""
    return home / ".cfmvc" / "spool"


def spools(home: Path) -> list[Spool]:
    """Return the spools of a project, the oldest first; remains of finished ones are cleared."""
    found = []
    for folder in spool_root(home).glob("*"):
        if folder.name.endswith(_DONE):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.name.endswith(_LOCK):
            if not folder.with_name(folder.name.removesuffix(_LOCK)).exists():
                folder.unlink(missing_ok=True)
        elif (spool := Spool.open(folder)) is not None:
            found.append(spool)
    return sorted(found, key=lambda spool: spool.header.started_ms)


def now_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def plain(value: Any) -> Any:
    """Return what JSON can say of a value (numpy's scalars and arrays, paths, anything)."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def moved_on(state: Acknowledged, offset: int, n_records: int) -> Acknowledged:
    """Return the state after a chunk."""
    return replace(state, offset=offset, n_records=state.n_records + n_records)


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            return False
        stream.seek(-1, os.SEEK_END)
        return stream.read() != b"\n"


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
