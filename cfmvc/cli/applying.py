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


def doubts(workspace: Path) -> list[str]:
    """Return what speaks against a study's best parameters, which are the user's to take.

    Raises
    ------
    ConfigError
        As :func:`applied`.
    """
    said, now = _result(workspace / BEST), read_yaml(workspace / "params.yaml")
    tested = said.get("test")
    found = [_doubt_of_test(*next(iter(tested.items())))] if tested else []
    others = {
        section: {key: value for key, value in values.items() if now[section].get(key) != value}
        for section, values in said.get("found_with", {}).items()
        if isinstance(now.get(section), Mapping)
    }
    if any(others.values()):
        there = {
            section: {key: now[section].get(key) for key in others[section]} for section in others
        }
        found.append(
            f"they were found with {settings_text(others)}, and `dvc repro` trains with what "
            f"params.yaml says: {settings_text(there)}"
        )
    return [doubt for doubt in found if doubt]


def settings_text(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return values as the option ``--set`` takes them."""
    return ", ".join(
        f"{s}.{key}={value}" for s, kept in sections.items() for key, value in kept.items()
    )


def _doubt_of_test(objective: str, tested: Mapping[str, Any]) -> str:
    """Return what a study's test says against its best trial: by the first objective it is so."""
    if tested["verdict"] == "not defined":
        return f"the test could not confirm them: {objective} is not defined on its conditions"
    if tested["verdict"] != "not confirmed":
        return ""
    return (
        f"the test has not confirmed them: {objective} is {tested['best']:.4g} with them, and "
        f"{tested['present_parameters']:.4g}, which is better, with those that the study began with"
    )


def _best(file: Path) -> dict[str, dict[str, Any]]:
    """Return the values of a study's best trial, by section."""
    return dict(_result(file)["params"])


def _result(file: Path) -> dict[str, Any]:
    """Return what a study has found."""
    is_made = file.is_file() and file.read_text() != NOTHING
    said = read_yaml(file) if is_made else {}
    if not said.get("params") or not _is_in_sections(said["params"]):
        raise ConfigError(f"{BEST}: no best parameters there; `cfmvc tune` makes them")
    return said


def _is_in_sections(values: Any) -> bool:
    return isinstance(values, Mapping) and all(isinstance(v, Mapping) for v in values.values())
