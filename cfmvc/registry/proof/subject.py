"""What is to be proven: a version of a registered model, or a run."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfmvc.config import read_yaml
from cfmvc.errors import ConfigError, listed, suggest
from cfmvc.tracking.store import UID_TAG, Store, is_lost

_PREFIX = "models:/"
_HOW_TO_REGISTER = (
    "none; `dvc repro` registers a version, or `dvc repro --force --single-item register` where it "
    "was built with another store"
)
_RUN = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Subject:
    """A version with its tags, or a run without one.

    Parameters
    ----------
    title
        ``models:/NAME/VERSION``, or the run's id.
    version
        MLflow's version, if it is one.
    run
        MLflow's run; of a version None, its tag names it.
    """

    title: str
    version: Any | None = None
    run: Any | None = None

    @property
    def tags(self) -> dict[str, str]:
        """What it says of itself."""
        holder = self.run.data if self.version is None and self.run is not None else self.version
        return dict(getattr(holder, "tags", {}))


def find_subject(what: str, store: Store, workspace: Path, name: str | None = None) -> Subject:
    """Find what a user has named.

    Parameters
    ----------
    what
        A version's number, ``models:/NAME/VERSION``, ``models:/NAME@ALIAS``, an alias (``champion``
        or ``@champion``), or a run's id.
    store
        Where to look.
    workspace
        Project whose ``params.yaml`` names the model where ``what`` does not.
    name
        The model's name, if not that one.

    Raises
    ------
    ConfigError
        If there is no such thing; the message says what there is.
    """
    if _RUN.fullmatch(what):
        return _run(what, store)
    label = what
    if what.startswith(_PREFIX):
        name, _, label = what.removeprefix(_PREFIX).replace("@", "/@").partition("/")
    name = name or _configured_name(workspace)
    model = _model(name, store)
    label = label.removeprefix("/").removeprefix("@")
    numbers = sorted(int(version.version) for version in store.versions(f"name = '{name}'"))
    aliases = {alias: int(number) for alias, number in model.aliases.items()}
    number = int(label) if label.isdecimal() else aliases.get(label)
    if number not in numbers:
        raise ConfigError(
            f"{what}: model '{name}' has no such version{suggest(label, aliases)}; "
            f"versions: {listed(numbers) or 'none'}; aliases: {listed(aliases) or 'none'}"
        )
    version = store.client.get_model_version(name, str(number))
    return Subject(f"{_PREFIX}{name}/{number}", version=version)


def _run(run_id: str, store: Store) -> Subject:
    try:
        run = store.client.get_run(run_id)
    except Exception as error:
        if not is_lost(error):
            raise
        run = store.find_run(run_id, store.experiment_ids())
        if run is None:
            raise ConfigError(
                f"{run_id}: no run of this store has that id, nor that {UID_TAG}"
            ) from error
    return Subject(run.info.run_id, run=run)


def _configured_name(workspace: Path) -> str:
    file = workspace / "params.yaml"
    section = read_yaml(file).get("register") if file.is_file() else None
    if not section or "name" not in section:
        raise ConfigError(
            f"no params.yaml with register.name in {workspace.resolve()}: run this in the "
            "project's folder, or say models:/NAME/VERSION"
        )
    return str(section["name"])


def _model(name: str, store: Store) -> Any:
    try:
        return store.client.get_registered_model(name)
    except Exception as error:
        if not is_lost(error):
            raise
        known = [model.name for model in store.client.search_registered_models(max_results=100)]
        raise ConfigError(
            f"no model '{name}' is registered{suggest(name, known)}; "
            f"registered: {listed(known) or _HOW_TO_REGISTER}"
        ) from error
