"""The NaN black box of a run, fetched from MLflow."""

from pathlib import Path

from cfmvc.errors import TrackingError
from cfmvc.tracking.callback import BLACK_BOXES
from cfmvc.tracking.downloads import downloaded, existing_store


def fetch_black_box(run_id: str, workspace: Path) -> Path:
    """Download the black box of a run, and return its folder.

    Parameters
    ----------
    run_id
        MLflow's id of the run.
    workspace
        Project of the run.

    Raises
    ------
    TrackingError
        If the store is not there, does not know the run, or the run has no black box.
    """
    store = existing_store(run_id, workspace)
    try:
        kept = store.client.list_artifacts(run_id, BLACK_BOXES)
    except Exception as error:  # of whatever store the files are in
        raise TrackingError(f"{run_id}: neither a folder nor a run of {store.uri}") from error
    if not kept:
        raise TrackingError(f"{run_id}: no NaN black box: no step of this run was replayed")
    return downloaded(store, run_id, run_id=run_id, artifact_path=kept[0].path)
