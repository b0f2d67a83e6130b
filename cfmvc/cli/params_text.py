"""The text of a ``params.yaml``, changed in one value."""

import json
import re
from typing import Any

from ruamel.yaml import YAML

from cfmvc.errors import ConfigError, listed

Value = bool | int | float | str


def with_value(text: str, section: str, key: str, value: Value) -> str:
    """Return the text of a ``params.yaml`` with another ``section.KEY``, all else byte for byte.

    Raises
    ------
    ConfigError
        If the value is not written as one plain or quoted word on its own line.
    """
    before = YAML().load(text)
    lines = text.splitlines(keepends=True)
    row, column = before[section].lc.value(key)
    head, old = lines[row][:column], lines[row][column:]
    word = re.match(
        r"""("[^"]*"|'[^']*'|[^\s#"'{\[|>&*](?:[^#\r\n,}]|(?<!\s)#)*?)(?=\s*$|\s+#|\s*[,}])""",
        old,
    )
    # JSON's quoted text is YAML's
    new = _written(value)
    if word is not None:
        lines[row] = head + new + old[word.end() :]
        changed = "".join(lines)
        expected = _plain(text)
        expected[section][key] = value
        if _plain(changed) == expected:
            return changed
    raise ConfigError(
        f"params.yaml: line {row + 1} is not a simple `{key}: VALUE`; "
        f"set {section}.{key} to {new} by hand"
    )


def _written(value: Value) -> str:
    """Return a value as YAML has it: a plain word as it is, anything else as JSON."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_./-]*[A-Za-z][A-Za-z0-9_./-]*", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _plain(text: str) -> dict[str, Any]:
    values = YAML(typ="safe").load(text)
    if not isinstance(values, dict):
        raise ConfigError(f"params.yaml: expected sections, for example {listed(['data'])}")
    return values
