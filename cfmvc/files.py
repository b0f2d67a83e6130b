"""Files that are either whole or not there, and the hashes that identify them."""

import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from cfmvc.errors import CfmvcError

_TEMPORARY = ".tmp"
_REPLACED = ".replaced"
# No write of another host takes that long without touching its file.
_ABANDONED_AFTER_SECONDS = 3600.0


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that becomes ``target`` if the block succeeds.

    Works for a file and for a folder (create it at the yielded path). What was there before is
    replaced only at the end, by a rename; a killed process leaves the old state, never half. (Of a
    folder that replaces one there are two renames; between them the old one lies beside.) Where
    ``target`` is a link, what it leads to is replaced, and the link stays; but not what is
    read-only, as files in DVC's cache: then the link itself is replaced.

    Raises
    ------
    CfmvcError
        If ``target`` is a folder and a file was made: all that the folder holds would be lost.
    """
    target = _destination(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        made = holder / target.name
        yield made
        if made.is_file() and target.is_dir():
            raise CfmvcError(f"{target}: is a folder, which a file cannot replace; name a file")
        _sync(made)
        _put_in_place(made, target)
    finally:
        if target.exists() or not (holder / _REPLACED).exists():
            shutil.rmtree(holder, ignore_errors=True)


def _destination(target: Path) -> Path:
    real = Path(os.path.realpath(target))
    is_protected = real.is_file() and not real.stat().st_mode & 0o222
    return target if is_protected else real


def _put_in_place(made: Path, target: Path) -> None:
    if not target.is_dir():
        os.replace(made, target)
        return
    replaced = made.parent / _REPLACED
    os.replace(target, replaced)  # a folder cannot be renamed onto another
    try:
        os.replace(made, target)
    except BaseException:
        os.replace(replaced, target)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically; same value, same bytes."""
    with atomic_path(path) as made:
        made.write_text(json_text(value))


def json_text(value: Any, allow_nan: bool = False) -> str:
    """Return ``value`` as :func:`write_json` writes it."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=allow_nan) + "\n"


def slug(name: str) -> str:
    """Return a name as a part of a path: letters, digits, ``.``, ``-`` and ``_``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "_"


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


def md5_of_file(path: Path) -> str:
    """Return the md5 of a file's bytes, which is what DVC records for a file.

    Of a folder (``.zarr``), that of the names and md5s of its files.
    """
    if path.is_dir():
        parts = sorted(part for part in path.rglob("*") if part.is_file())
        told = "".join(f"{part.relative_to(path)} {md5_of_file(part)}\n" for part in parts)
        return hashlib.md5(told.encode(), usedforsecurity=False).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


@contextmanager
def temporary_file(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield a new file beside ``target``, and its stream; rename it, or it is gone afterwards.

    For files that are written piece by piece. What a killed process leaves of them,
    :func:`remove_abandoned` finds. The folder is not made.
    """
    name = f".{target.name}.{socket.gethostname()}.{os.getpid()}{_TEMPORARY}"
    path = target.with_name(name)
    try:
        with path.open("wb") as stream:
            yield path, stream
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of processes that are gone; call it while writing none."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        if _is_abandoned(path):
            path.unlink(missing_ok=True)


def flush(stream: BinaryIO) -> None:
    """Flush a file's bytes to the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk: a renamed file survives a power cut only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(made: Path) -> None:
    """Flush to the disk before the rename, so that a power cut cannot leave an empty file."""
    for path in [made] if made.is_file() else [p for p in made.rglob("*") if p.is_file()]:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _is_abandoned(path: Path) -> bool:
    """Return whether nobody writes a temporary file any more; another process may well do so."""
    rest, _, pid = path.name.removesuffix(_TEMPORARY).rpartition(".")
    if not rest.endswith(f".{socket.gethostname()}"):
        with suppress(OSError):
            return time.time() - path.stat().st_mtime > _ABANDONED_AFTER_SECONDS
        return False
    if not pid.isdigit() or int(pid) == os.getpid():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it lives, and is another user's
    return False
