"""The work behind ``cfmvc tune apply``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cfmvc.cli.params_text import with_value
from cfmvc.config import read_yaml
from cfmvc.errors import ConfigError
from cfmvc.files import atomic_path
from cfmvc.tuning.files import BEST, NOTHING


def applied(workspace: Path) -> list[str]:
    """Change ``params.yaml`` to a study's best parameters, and return what to print.

    Raises
    ------
    ConfigError
        If there is no study's result, or a line of ``params.yaml`` is not there or cannot be
        changed in place.
    """
    found = _best(workspace / BEST)
    file = workspace / "params.yaml"
    now = read_yaml(file)
    with file.open(newline="") as stream:
        text = stream.read()
    lines = []
    for section, values in found.items():
        for key, value in values.items():
            present = now.get(section)
            before = present.get(key) if isinstance(present, Mapping) else None
            if before != value:
                text = with_value(text, section, key, value)
                lines.append(f"{section}.{key}: {before} -> {value}")
    if not lines:
        return ["params.yaml has these values already"]
    with atomic_path(file) as made, made.open("w", newline="") as stream:
        stream.write(text)
    return [*lines, "next: git diff params.yaml, then dvc repro"]


def _best(file: Path) -> dict[str, dict[str, Any]]:
    """Return the values of a study's best trial, by section."""
    is_made = file.is_file() and file.read_text() != NOTHING
    found = read_yaml(file).get("params") if is_made else None
    if not found or not _is_in_sections(found):
        raise ConfigError(f"{BEST}: no best parameters there; `cfmvc tune` makes them")
    return dict(found)


def _is_in_sections(values: Any) -> bool:
    return isinstance(values, Mapping) and all(isinstance(v, Mapping) for v in values.values())
