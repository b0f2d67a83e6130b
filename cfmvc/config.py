"""Strict loading of ``params.yaml``: every section is a frozen model, nothing is guessed.

Values stand in ``params.yaml`` alone. The section classes live beside their owners and carry
types, meanings and ranges; an unknown or a missing key is a :class:`ConfigError`.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML, YAMLError

from cfmvc.errors import ConfigError, listed, suggest


class Section(BaseModel):
    """Base of the configuration sections: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


SectionT = TypeVar("SectionT", bound=Section)


def default_params_file() -> Path:
    """Return the ``params.yaml`` that cfmvc ships (a checkout's own, or the wheel's copy)."""
    package = Path(__file__).parent
    shipped = package / "params.yaml"
    return shipped if shipped.is_file() else package.parent / "params.yaml"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping (YAML 1.2, so that ``1e-3`` is a number)."""
    try:
        values = deepcopy(_parsed(path.read_text()))
    except FileNotFoundError as error:
        is_project = path.name == "params.yaml"
        remedy = "; run this in the project's folder" if is_project else ""
        raise ConfigError(f"{path}: no such file{remedy}") from error
    except YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections with keys, found {type(values).__name__}")
    return values


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """Parse a text once: params.yaml takes 50 ms each time, and every section asks for it."""
    return YAML(typ="safe").load(text)


def parse_section(
    section: type[SectionT], values: Mapping[str, Any] | None, where: str
) -> SectionT:
    """Build a section from plain values, naming every fault at once.

    Parameters
    ----------
    section
        The section's class.
    values
        What the file (or the command line) says; None where all of its lines are commented out.
    where
        Name of the section, as the user writes it.

    Raises
    ------
    ConfigError
        If a key is unknown, missing, of the wrong type or out of range.
    """
    if not isinstance(values, Mapping | None):
        raise ConfigError(f"{where}: expected keys with values, found {values!r}")
    try:
        return section.model_validate(dict(values or {}))
    except ValidationError as error:
        faults = [_describe(fault, section, where) for fault in error.errors()]
        raise ConfigError("\n".join(faults)) from error


def section_of(params: Mapping[str, Any], name: str, section: type[SectionT]) -> SectionT:
    """Build a section out of all parameters.

    Raises
    ------
    ConfigError
        If there is no such section, or it has faults.
    """
    if name not in params:
        raise ConfigError(f"params.yaml: no section '{name}'; sections: {listed(params)}")
    return parse_section(section, params[name], name)


def override(params: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Return a copy of ``params`` in which each ``section.key=value`` of ``settings`` is set.

    Values are read as YAML, but for those that replace a text: ``data.control=007`` stays as it is
    written, and ``data.separator=`` is the empty text. The name must exist already, so that a
    misspelt one is an error.

    Raises
    ------
    ConfigError
        If a setting is not ``section.key=value``, names nothing, or its value is not valid YAML.
    """
    # What is no section is somebody else's, and stays.
    changed = {n: dict(v) if isinstance(v, Mapping) else v for n, v in params.items()}
    for setting in settings:
        name, equals, text = setting.partition("=")
        section, dot, key = name.strip().partition(".")
        if not equals or not dot:
            raise ConfigError(f"'{setting}': expected section.key=value, for example flow.lr=1e-3")
        if not isinstance(changed.get(section), dict):
            raise ConfigError(
                f"'{name}': no section '{section}'{suggest(section, changed)}; "
                f"sections: {listed(changed)}"
            )
        if key not in changed[section]:
            raise ConfigError(
                f"'{name}': no key '{key}' in section '{section}'"
                f"{suggest(key, changed[section])}; keys: {listed(changed[section], 40)}"
            )
        changed[section][key] = _read_value(setting, text, changed[section][key])
    return changed


def _read_value(setting: str, text: str, before: Any) -> Any:
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ConfigError(f"'{setting}': the value is not valid YAML: {problem}") from error
    is_empty = value is None and not text.strip()
    if isinstance(before, str) and (is_empty or isinstance(value, bool | int | float | date)):
        return text.strip()
    return value


def _describe(fault: Any, section: type[Section], where: str) -> str:
    name = ".".join([where, *map(str, fault["loc"])])
    if fault["type"] == "extra_forbidden":
        known = section.model_fields
        return (
            f"{name}: unknown key{suggest(str(fault['loc'][-1]), known)}; "
            f"valid keys: {listed(known, 40)}"
        )
    if fault["type"] == "missing":
        return f"{name}: missing"
    return f"{name}: {fault['msg']} (got {fault['input']!r})"
