"""``dvc.lock``: what DVC has written down of each stage, and its own rule for hashes."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cfmvc.config import read_yaml
from cfmvc.errors import ConfigError
from cfmvc.files import md5_of_file

FOLDER_SUFFIX = ".dir"


@dataclass(frozen=True)
class Lock:
    """The stages of a ``dvc.lock``.

    Parameters
    ----------
    stages
        Name and entry, as the file has them.
    """

    stages: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Lock":
        """Read a file.

        Raises
        ------
        ConfigError
            If it is not there, or not a ``dvc.lock``.
        """
        stages = read_yaml(path).get("stages") or {}
        try:
            lock = cls(stages)
            _ = (lock.outs, lock.deps)
        except (AttributeError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: not a dvc.lock") from error
        return lock

    @cached_property
    def outs(self) -> dict[str, str]:
        """Path and md5 of what the stages made."""
        return {path: md5 for entry in self.stages.values() for path, md5 in _md5s(entry, "outs")}

    @cached_property
    def deps(self) -> dict[str, list[tuple[str, str]]]:
        """Of each stage, path and md5 of what it was made from."""
        return {name: list(_md5s(entry, "deps")) for name, entry in self.stages.items()}

    @property
    def data_path(self) -> str | None:
        """The raw data, by the parameter ``data.path`` that a stage was run with."""
        for entry in self.stages.values():
            path = (_params(entry).get("data") or {}).get("path")
            if path:
                return str(path)
        return None

    def md5_of(self, path: str) -> str | None:
        """Return the md5 of an output, or of what a stage was made from; None if unknown."""
        given = {path: md5 for deps in self.deps.values() for path, md5 in deps}
        return self.outs.get(path, given.get(path))

    def params_of(self, stage: str) -> dict[str, Any]:
        """Return the sections of ``params.yaml`` that a stage was run with."""
        return _params(self.stages[stage])

    def upstream_of(self, paths: Iterable[str]) -> "Lock":
        """Return the stages that made some outputs, and those that they rest on."""
        entries = self.stages.items()
        makers = {path: name for name, entry in entries for path, _ in _md5s(entry, "outs")}
        waiting, found = [makers[path] for path in paths if path in makers], set[str]()
        while waiting:
            stage = waiting.pop()
            if stage not in found:
                found.add(stage)
                waiting += [makers[path] for path, _ in self.deps[stage] if path in makers]
        return Lock({name: entry for name, entry in entries if name in found})


def dvc_md5(path: Path) -> str:
    """Return what DVC records for a file or a folder.

    Of a folder it is the md5 of the list of its files, as JSON and sorted by path, with ``.dir``
    at the end; so it is called in DVC's cache as well (``dvc_data.hashfile.tree``).
    """
    if not path.is_dir():
        return md5_of_file(path)
    files = {part.relative_to(path).as_posix(): part for part in path.rglob("*") if part.is_file()}
    entries = [{"md5": md5_of_file(files[name]), "relpath": name} for name in sorted(files)]
    listing = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + FOLDER_SUFFIX


def _md5s(entry: Mapping[str, Any], section: str) -> Iterable[tuple[str, str]]:
    return [(item["path"], item["md5"]) for item in entry.get(section) or () if "md5" in item]


def _params(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return sections; a parameter named by itself (``flow.lr``) is put into its section."""
    sections = dict[str, Any]()
    for name, value in ((entry.get("params") or {}).get("params.yaml") or {}).items():
        section, dot, key = name.partition(".")
        if dot:
            sections.setdefault(section, {})[key] = value
        else:
            sections[name] = value
    return sections
