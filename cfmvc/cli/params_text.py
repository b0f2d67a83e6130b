"""The text of a ``params.yaml``, changed in one value."""

import json
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from cfmvc.errors import ConfigError, listed

Value = bool | int | float | str


def with_value(text: str, section: str, key: str, value: Value) -> str:
    """Return the text of a ``params.yaml`` with another ``section.KEY``, all else byte for byte.

    Raises
    ------
    ConfigError
        If there is no such key, or its value is not written as one plain or quoted word on its own
        line.
    """
    new, expected = _written(value), _plain(text)
    values = YAML().load(text).get(section)
    if not isinstance(values, CommentedMap) or key not in values:
        raise ConfigError(
            f"params.yaml: no key '{key}' in section '{section}'; put `{key}: {new}` there by hand"
        )
    lines = text.splitlines(keepends=True)
    row, column = values.lc.value(key)
    head, old = lines[row][:column], lines[row][column:]
    word = re.match(
        r"""("[^"]*"|'[^']*'|[^\s#"'{\[|>&*](?:[^#\r\n,}]|(?<!\s)#)*?)(?=\s*$|\s+#|\s*[,}])""",
        old,
    )
    if word is not None:
        lines[row] = head + new + old[word.end() :]
        changed = "".join(lines)
        expected[section][key] = value
        if _plain(changed) == expected:
            return changed
    raise ConfigError(
        f"params.yaml: line {row + 1} is not a simple `{key}: VALUE`; "
        f"set {section}.{key} to {new} by hand"
    )


def _written(value: Value) -> str:
    """Return a value as YAML has it: a plain word as it is, anything else as JSON.

    JSON's quoted text is YAML's.
    """
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_./-]*[A-Za-z][A-Za-z0-9_./-]*", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _plain(text: str) -> dict[str, Any]:
    values = YAML(typ="safe").load(text)
    if not isinstance(values, dict):
        raise ConfigError(f"params.yaml: expected sections, for example {listed(['data'])}")
    return values
