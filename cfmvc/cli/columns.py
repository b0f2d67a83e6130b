"""``--map``, ``--control``, ``--separator``: the user's names for what the contract asks for."""

from cfmvc.data.config import DataConfig
from cfmvc.errors import ConfigError, listed, suggest

MAPPED = ("perturbation", "batch", "cell_type", "dose", "spatial", "embeddings", "counts_layer")
_MAY_BE_NONE = ("dose", "spatial", "embeddings")  # though the file has something of that name


def mapped(
    data: DataConfig, mapping: list[str], control: str | None, separator: str | None = None
) -> DataConfig:
    """Return the data section with the user's names in it; None leaves what it says.

    Raises
    ------
    ConfigError
        If an entry is not ``key=NAME`` with a key of the contract, or ``key=`` with one that may be
        missing.
    """
    given = {"control": control, "separator": separator}
    changes = {key: value for key, value in given.items() if value is not None}
    for entry in mapping:
        key, equals, name = entry.partition("=")
        if equals and key not in MAPPED:
            raise ConfigError(f"--map {entry}: no '{key}'{suggest(key, MAPPED)}; {listed(MAPPED)}")
        if not equals or (not name and key not in _MAY_BE_NONE):
            raise ConfigError(f"--map {entry}: expected key=NAME, e.g. perturbation=guide_identity")
        changes[key] = name
    return data.model_copy(update=changes)
