"""The bundle of a registered model, for those who predict without MLflow's own loader."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

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


def fetch_bundle(model: str, workspace: Path | None = None) -> Path:
    """Return the folder of a model's bundle, downloaded if it is not on this machine.

    Parameters
    ----------
    model
        ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``models:/ID``.
    workspace
        Project whose ``params.yaml`` names the store where ``MLFLOW_TRACKING_URI`` names none; the
        working folder if not given.

    Raises
    ------
    TrackingError
        If there is no registry, it does not answer, or does not know the model.
    """
    workspace = workspace or Path.cwd()
    uri = _store_to_read(model, workspace)
    store = Store.connect(uri, workspace)
    from mlflow.artifacts import download_artifacts

    target = tempfile.mkdtemp(prefix="cfmvc-fetched-")
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    try:
        with patience(), as_default(store):
            folder = Path(download_artifacts(model, dst_path=target))
    except Exception as error:  # of whatever store the files are in
        raise TrackingError(f"{model}: cannot be fetched: {first_line(error)}") from error
    bundle = folder / "artifacts" / "bundle"
    if not bundle.is_dir():
        raise TrackingError(f"{model}: not a model that cfmvc has registered")
    return bundle


def _store_to_read(model: str, workspace: Path) -> str:
    """Return the address of the store that is there; none is made for reading."""
    params = workspace / "params.yaml"
    section = read_yaml(params).get("tracking") if params.is_file() else None
    if section is None:
        uri = absolute_uri(os.environ.get(URI_VARIABLE), workspace)
    else:
        uri = tracking_uri(parse_section(TrackingConfig, section, "tracking"), workspace)
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        raise TrackingError(
            f"{model}: no registry: there is no {file}; run this in the project's folder, or let "
            f"{URI_VARIABLE} name the store"
        )
    return uri
