"""Checkpoints of a training: whatever happens to the process, the last one on disk is whole.

A file has a temporary name until all of it is on the disk. Older files go only after that.
"""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cfmvc.errors import CheckpointError
from cfmvc.files import flush, remove_abandoned, sync_folder, temporary_file
from cfmvc.shards import current_shard
from cfmvc.training.checkpoint_file import (
    Checkpoint,
    DamagedFile,
    ForeignFile,
    PackedCheckpoint,
    read_checkpoint,
)

__all__ = ["Checkpoint", "Checkpoints", "NoCheckpoints"]

_SUFFIX = ".safetensors"
_PROBE_BYTES = 1 << 20


class Checkpoints:
    """The checkpoints of one training, in a folder of their own.

    Parameters
    ----------
    folder
        Where they are. Checkpoints of an earlier training that lie there are removed once the
        first one of this training is written.
    fingerprint
        Of the data, the parameters and the code that the training belongs to.
    every_seconds
        How much time there is between two of them, at least.
    n_kept
        How many are kept.
    before_first
        Called before the first one is written: who keeps a record of the training writes down
        which it is, so that no checkpoint is ever there without that.
    """

    are_kept = True
    what_next = "; started again (`cfmvc fit`: with --resume), it goes on from its last checkpoint"

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        every_seconds: float,
        n_kept: int = 2,
        before_first: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder
        self._fingerprint = fingerprint
        self._every_seconds = every_seconds
        self._n_kept = max(n_kept, 1)
        self._saved_at = time.monotonic()
        self._before_first = before_first
        self._damaged = set[Path]()
        # In the names, so that a damaged file is known to be ours or not without reading it.
        self._mark = hashlib.sha256(fingerprint.encode()).hexdigest()[:8]

    def is_due(self) -> bool:
        """Return whether enough time has passed since the last one, or since the start."""
        return time.monotonic() - self._saved_at >= self._every_seconds

    def has_some(self) -> bool:
        """Return whether there is one of this training."""
        return bool(self._ours())

    def expect_writable(self, n_bytes: int = _PROBE_BYTES) -> None:
        """Make the folder, and write to it what is taken away again: before hours are spent.

        Parameters
        ----------
        n_bytes
            Size of a checkpoint, as far as it is known.

        Raises
        ------
        CheckpointError
            If a checkpoint could not be written there.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
            remove_abandoned(self.folder)
            with temporary_file(self.folder / "probe") as (_, stream):
                block = bytes(_PROBE_BYTES)
                for start in range(0, n_bytes, _PROBE_BYTES):
                    stream.write(block[: n_bytes - start])
                flush(stream)
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}: checkpoints cannot be written there: {_reason(error)}; a "
                f"checkpoint needs {_in_words(n_bytes)}, {self._free()}. Nothing was trained yet: "
                "make room there, or let this user write there"
            ) from error

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, and then remove those that are not kept.

        :meth:`expect_writable` has made the folder; one that has vanished since is not made again:
        where a disk was unmounted, that would fill the wrong one.

        Raises
        ------
        CheckpointError
            If it cannot be written; those before it are untouched.
        """
        packed = PackedCheckpoint(checkpoint, self._fingerprint)
        path = self._path(checkpoint.step)
        try:
            if self._before_first is not None:
                self._before_first()
                self._before_first = None
            remove_abandoned(self.folder)
            with temporary_file(path) as (made, stream):
                packed.write(stream)
                flush(stream)
                os.replace(made, path)
            sync_folder(self.folder)
        except OSError as error:
            raise CheckpointError(
                f"{path}: the checkpoint of step {checkpoint.step} could not be written: "
                f"{_reason(error)}; it needs {_in_words(packed.n_bytes)}, {self._free()}. "
                f"{self._what_is_left()}"
            ) from error
        self._damaged.discard(path)
        self._remove_older(path)
        self._saved_at = time.monotonic()

    def latest(self, is_demanded: bool = False) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; None if there is none of this training.

        Damaged ones are passed over, which is said on stderr.

        Parameters
        ----------
        is_demanded
            Whether the user has asked to go on. Then checkpoints of another training, or of
            another version's format, are an error; otherwise they are passed over, and it is said.

        Raises
        ------
        CheckpointError
            If all that there are are damaged, or (``is_demanded``) of another training.
        """
        damages, foreign = dict[Path, str](), dict[Path, str]()
        for path in self._all():
            try:
                if not self._is_ours(path):
                    raise ForeignFile("data, parameters or code have changed since")
                found = read_checkpoint(path, self._fingerprint)
            except FileNotFoundError:
                continue  # another process has just removed it
            except DamagedFile as error:
                damages[path] = str(error)
            except ForeignFile as error:
                foreign[path] = str(error)
            else:
                self._pass_over(damages, path)
                return found
        if damages:
            listed = "; ".join(f"{path.name} {damage}" for path, damage in damages.items())
            raise CheckpointError(
                f"{self.folder}: no checkpoint is whole ({listed}); to train from the start, "
                "remove the folder"
            )
        if is_demanded and foreign:
            path, reason = next(iter(foreign.items()))
            raise CheckpointError(
                f"{path}: cannot be gone on from: {reason}; bring back what it was made with, or "
                f"remove {self.folder} to train from the start"
            )
        if foreign and current_shard().is_first:
            path, reason = next(iter(foreign.items()))
            print(f"{path}: not gone on from: {reason}; training from the start", file=sys.stderr)
        return None

    def clear(self) -> None:
        """Remove all checkpoints, and the folder if nothing else is in it.

        Where that cannot be done it is said on stderr: what was trained is none the worse for it.
        """
        try:
            remove_abandoned(self.folder)
            for path in self._all():
                path.unlink(missing_ok=True)
        except OSError as error:
            print(f"checkpoints in {self.folder} stay: {_reason(error)}", file=sys.stderr)
        with suppress(OSError):
            self.folder.rmdir()

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:012d}-{self._mark}{_SUFFIX}"

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob(f"step-*{_SUFFIX}"), reverse=True)

    def _ours(self) -> list[Path]:
        """Return the files of this training, the newest first."""
        return [path for path in self._all() if self._is_ours(path)]

    def _is_ours(self, path: Path) -> bool:
        return path.stem.endswith(f"-{self._mark}")

    def _pass_over(self, damages: dict[Path, str], used: Path) -> None:
        self._damaged |= set(damages)
        for path, damage in damages.items():
            print(
                f"checkpoint {path} {damage}; going on from {used.name} (step {_step(used)}) "
                "instead",
                file=sys.stderr,
            )

    def _remove_older(self, newest: Path) -> None:
        """Remove what is not kept; also later steps, which this training has not come from."""
        sound = [path for path in self._ours() if path not in self._damaged]
        kept = [path for path in sound if path.name <= newest.name][: self._n_kept]
        for path in self._all():
            if path not in kept:
                with suppress(OSError):  # the next one tries again
                    path.unlink(missing_ok=True)

    def _what_is_left(self) -> str:
        left = next((path for path in self._ours() if path not in self._damaged), None)
        if left is None:
            return "There is none before it. Make room, and start the training again"
        return (
            f"The one of step {_step(left)} ({left}) is still valid: make room, start again, and "
            "the training goes on from there"
        )

    def _free(self) -> str:
        try:
            return f"{_in_words(shutil.disk_usage(self.folder).free)} are free"
        except OSError:
            return "and the folder is not there"


class NoCheckpoints:
    """Keeps nothing; for trainings that are over in no time."""

    are_kept = False
    what_next = "; nothing of it was kept"

    def is_due(self) -> bool:
        """Return False."""
        return False

    def has_some(self) -> bool:
        """Return False."""
        return False

    def expect_writable(self, n_bytes: int = 0) -> None:
        """Do nothing."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Do nothing."""

    def latest(self, is_demanded: bool = False) -> Checkpoint | None:
        """Return None."""
        return None

    def clear(self) -> None:
        """Do nothing."""


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _in_words(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB"
