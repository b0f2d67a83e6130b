"""Files that are either whole or not there, and the hashes that identify them."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cfmvc.errors import CfmvcError


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that becomes ``target`` if the block succeeds.

    Works for a file and for a folder (create it at the yielded path). What was there before is
    replaced only at the end, by a rename; a killed process leaves the old state, never half.

    Raises
    ------
    CfmvcError
        If ``target`` is a folder and a file was made: all that the folder holds would be lost.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        made = holder / target.name
        yield made
        if made.is_file() and target.is_dir():
            raise CfmvcError(f"{target}: is a folder, which a file cannot replace; name a file")
        _sync(made)
        if target.is_dir() and not target.is_symlink():
            os.replace(target, holder / "replaced")  # a folder cannot be renamed onto another
        os.replace(made, target)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically; same value, same bytes."""
    with atomic_path(path) as made:
        made.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


def md5_of_file(path: Path) -> str:
    """Return the md5 of a file's bytes, which is what DVC records for a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _sync(made: Path) -> None:
    """Flush to the disk before the rename, so that a power cut cannot leave an empty file."""
    for path in [made] if made.is_file() else [p for p in made.rglob("*") if p.is_file()]:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
