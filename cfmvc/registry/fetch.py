"""The bundle of a registered model, for those who predict without MLflow's own loader."""

from pathlib import Path

from cfmvc.errors import TrackingError
from cfmvc.tracking.downloads import downloaded, existing_store

_SCHEME, _BUNDLE = "models:/", "artifacts/bundle"


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
    store = existing_store(model, workspace or Path.cwd())
    # A version carries three hundred files of code along, which take a server ten seconds.
    is_version = any(mark in model.removeprefix(_SCHEME) for mark in "/@")
    if is_version:
        bundle = downloaded(store, model, artifact_uri=f"{model}/{_BUNDLE}")
    else:  # MLflow takes no path below the id of a logged model
        bundle = downloaded(store, model, artifact_uri=model) / _BUNDLE
    if not bundle.is_dir() or not any(bundle.iterdir()):
        raise TrackingError(f"{model}: not a model that cfmvc has registered")
    return bundle
