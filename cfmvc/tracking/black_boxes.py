"""The NaN black box of a run, fetched from MLflow."""

import tempfile
from pathlib import Path

from cfmvc.errors import TrackingError
from cfmvc.tracking.callback import BLACK_BOXES
from cfmvc.tracking.store import Store, as_default, first_line, patience


def fetch_black_box(run_id: str, uri: str, workspace: Path) -> Path:
    """Download the black box of a run, and return its folder.

    Parameters
    ----------
    run_id
        MLflow's id of the run.
    uri
        Address of the store.
    workspace
        The project's folder.

    Raises
    ------
    TrackingError
        If the store does not answer, or the run has no black box.
    """
    store = Store.connect(uri, workspace)
    from mlflow.artifacts import download_artifacts

    target = tempfile.mkdtemp(prefix="cfmvc-black-box-")
    try:
        with patience(), as_default(store):
            folder = Path(
                download_artifacts(run_id=run_id, artifact_path=BLACK_BOXES, dst_path=target)
            )
    except Exception as error:  # of whatever store the files are in
        raise TrackingError(
            f"{run_id}: no NaN black box of a run of that id in {store.uri}: {first_line(error)}"
        ) from error
    kept = sorted(path for path in folder.iterdir() if path.is_dir())
    if not kept:
        raise TrackingError(f"{run_id}: the run had no non-finite step: it has no NaN black box")
    return kept[0]
