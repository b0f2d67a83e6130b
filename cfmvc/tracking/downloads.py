"""Files out of a store that is there already: reading makes none."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from cfmvc.config import parse_section, read_yaml
from cfmvc.errors import TrackingError
from cfmvc.tracking.config import (
    URI_VARIABLE,
    TrackingConfig,
    absolute_uri,
    sqlite_file,
    tracking_uri,
)
from cfmvc.tracking.store import Store, as_default, first_line, patience


def existing_store(what: str, workspace: Path) -> Store:
    """Connect to the store in force, which is not made where it is not there.

    Parameters
    ----------
    what
        What is wanted of it, for the message.
    workspace
        Project whose ``params.yaml`` names the store where ``MLFLOW_TRACKING_URI`` names none.

    Raises
    ------
    TrackingError
        If there is none, or it does not answer.
    """
    params = workspace / "params.yaml"
    section = read_yaml(params).get("tracking") if params.is_file() else None
    if section is None:
        uri = absolute_uri(os.environ.get(URI_VARIABLE), workspace)
    else:
        uri = tracking_uri(parse_section(TrackingConfig, section, "tracking"), workspace)
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        is_project = section is not None
        remedy = "`dvc repro` makes it" if is_project else "run this in the project's folder"
        raise TrackingError(
            f"{what}: no store: there is no {file}; {remedy}, or let {URI_VARIABLE} name the store"
        )
    return Store.connect(uri, workspace)


def downloaded(store: Store, what: str, **address: Any) -> Path:
    """Download artifacts to a folder that goes when the process ends.

    Parameters
    ----------
    store
        Where they are.
    what
        Their name, for the message.
    address
        As ``mlflow.artifacts.download_artifacts`` takes it.

    Raises
    ------
    TrackingError
        If they cannot be had.
    """
    from mlflow.artifacts import download_artifacts

    target = tempfile.mkdtemp(prefix="cfmvc-fetched-")
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    try:
        with patience(), as_default(store):
            return Path(download_artifacts(**address, dst_path=target))
    except Exception as error:  # of whatever store the files are in
        raise TrackingError(f"{what}: cannot be fetched: {first_line(error)}") from error
