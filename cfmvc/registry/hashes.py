"""What identifies a model: hashes of its files and of its evaluation."""

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256_of_folder(folder: Path, pattern: str = "*") -> str:
    """Return one hash over names and bytes of all files below a folder that match.

    Python's ``__pycache__`` is left out: it appears wherever code is loaded, as MLflow does with a
    version's code in a store on this machine. Who runs that code has to look at it by itself
    (:mod:`cfmvc.registry.proof.compiled`).
    """
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob(pattern) if p.is_file()):
        if "__pycache__" in path.parts:
            continue
        with path.open("rb") as stream:
            inner = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{inner}\n".encode())
    return total.hexdigest()


def sha256_of_values(values: Any) -> str:
    """Return a hash of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
