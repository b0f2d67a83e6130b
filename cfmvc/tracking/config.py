"""The ``tracking`` section of ``params.yaml``, and the address that it amounts to."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from cfmvc.config import Section
from cfmvc.errors import ConfigError

URI_VARIABLE = "MLFLOW_TRACKING_URI"
_SQLITE = "sqlite:///"
_CREDENTIALS = re.compile(r"(\w+://)[^/@\s]+@")
_PASSWORD_OPTION = re.compile(r"([?&]password=)[^&\s]*")


class TrackingConfig(Section):
    """Where runs are kept."""

    uri: str | None = Field(
        description="address of the MLflow store; null: an SQLite file in the project's folder. "
        "The environment's MLFLOW_TRACKING_URI goes first"
    )
    experiment: str = Field(min_length=1, description="name of the MLflow experiment")
    flush_seconds: float = Field(
        ge=0, description="longest wait at a stage's end for a store that answers slowly"
    )


def home_of(workspace: Path) -> Path:
    """Return the folder that owns the store and the spool of a workspace.

    It is the workspace itself, but for DVC's temporary copies (``dvc exp run --temp`` and
    ``--queue`` work in ``.dvc/tmp/exps/...`` and delete the copy afterwards): there it is the
    project that they were made from.
    """
    workspace = workspace.resolve()
    for folder in workspace.parents:
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            return folder.parents[2] / _below_its_copy(workspace, folder)
    return workspace


def _below_its_copy(workspace: Path, copies: Path) -> Path:
    """Return where a project is in DVC's copy of its repository, which may be larger."""
    for folder in (workspace, *workspace.parents):
        if folder == copies:
            break
        if (folder / ".dvc").is_dir():
            return workspace.relative_to(folder)
    return Path()


def tracking_uri(config: TrackingConfig, workspace: Path) -> str:
    """Return the address in force: the environment's, the configured one, or the default."""
    return absolute_uri(os.environ.get(URI_VARIABLE) or config.uri, workspace)


def absolute_uri(uri: str | None, workspace: Path | None = None) -> str:
    """Return an address that holds in any working folder.

    Parameters
    ----------
    uri
        An address, possibly an SQLite file relative to the project; none: the default store.
    workspace
        The project's folder; the working folder if not given.

    Raises
    ------
    ConfigError
        If the address is a plain folder: MLflow has given up its file store.
    """
    home = home_of(workspace or Path.cwd())
    if not uri:
        return _SQLITE + str(home / "mlflow.db")
    if uri.startswith(_SQLITE):
        path, question, query = uri.removeprefix(_SQLITE).partition("?")
        return _SQLITE + str(home / path) + question + query
    if "://" not in uri or uri.startswith("file:"):
        raise ConfigError(
            f"tracking.uri: '{uri}' is a folder, and MLflow no longer keeps runs in folders; "
            "use sqlite:///FILE.db or the http address of a server"
        )
    return uri.rstrip("/")


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an absolute SQLite address, None for any other store."""
    if not uri.startswith(_SQLITE):
        return None
    return Path(uri.removeprefix(_SQLITE).partition("?")[0])


def shareable_uri(uri: str, workspace: Path) -> str:
    """Return an address without passwords and without this machine's folders."""
    path, home = sqlite_file(uri), home_of(workspace)
    if path is not None:
        inside = path.is_relative_to(home)
        return _SQLITE + str(path.relative_to(home) if inside else path)
    parts = urlsplit(uri)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return without_password(bare)


def without_password(text: str) -> str:
    """Return a text in which addresses have lost their user and password."""
    return _PASSWORD_OPTION.sub(r"\1***", _CREDENTIALS.sub(r"\1", text))
