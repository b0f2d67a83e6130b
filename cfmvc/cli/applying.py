"""The work behind ``cfmvc tune apply``."""

from pathlib import Path

from cfmvc.cli.params_text import with_value
from cfmvc.config import read_yaml
from cfmvc.errors import ConfigError
from cfmvc.files import atomic_path
from cfmvc.tuning.files import BEST


def applied(workspace: Path) -> list[str]:
    """Change ``params.yaml`` to a study's best parameters, and return what to print.

    Raises
    ------
    ConfigError
        If there is no study's result, or a line of ``params.yaml`` cannot be changed in place.
    """
    found = read_yaml(workspace / BEST).get("params") if (workspace / BEST).is_file() else None
    if not found:
        raise ConfigError(f"{BEST}: no best parameters there; `cfmvc tune` makes them")
    file = workspace / "params.yaml"
    now = read_yaml(file)
    with file.open(newline="") as stream:
        text = stream.read()
    lines = []
    for section, values in found.items():
        for key, value in values.items():
            before = now.get(section, {}).get(key)
            if before != value:
                text = with_value(text, section, key, value)
                lines.append(f"{section}.{key}: {before} -> {value}")
    if not lines:
        return ["params.yaml has these values already"]
    with atomic_path(file) as made, made.open("w", newline="") as stream:
        stream.write(text)
    return [*lines, "next: git diff params.yaml, then dvc repro"]
