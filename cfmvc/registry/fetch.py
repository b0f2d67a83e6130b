"""The bundle of a registered model, for those who predict without MLflow's own loader."""

from pathlib import Path

from cfmvc.errors import TrackingError
from cfmvc.tracking.downloads import downloaded, existing_store


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
    bundle = downloaded(store, model, artifact_uri=model) / "artifacts" / "bundle"
    if not bundle.is_dir():
        raise TrackingError(f"{model}: not a model that cfmvc has registered")
    return bundle
