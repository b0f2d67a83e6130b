"""What a version's training has cost and suffered, as tags that the gate reads."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from cfmvc.errors import TrackingError
from cfmvc.files import read_json
from cfmvc.tracking.config import absolute_uri, sqlite_file
from cfmvc.tracking.run_link import RunLink, find_run, read_link
from cfmvc.tracking.store import Store

NAN_STEPS_TAG, PEAK_MEMORY_TAG = "cfmvc.nan_steps", "cfmvc.peak_memory_gib"
_STAGES = ("train_vae", "train_flow")
_RESULTS = Path("results")


def training_facts(workspace: Path, store: Store) -> dict[str, str]:
    """Return the tags; what is not known is left out.

    Vetoed updates stand in the stages' outputs. Memory is the machine's business, so it is asked of
    the runs that the outputs link to.
    """
    results = workspace / _RESULTS
    figures = [results / f"{stage}.json" for stage in _STAGES]
    tags = {}
    if all(path.is_file() for path in figures):
        tags[NAN_STEPS_TAG] = str(sum(int(read_json(path)["nan_steps"]) for path in figures))
    links = [results / "runs" / f"{stage}.json" for stage in _STAGES]
    peaks = [_peak(link, store, workspace) for link in links]
    known = [peak for peak in peaks if peak is not None]
    if len(known) == len(_STAGES):
        tags[PEAK_MEMORY_TAG] = f"{max(known):.4g}"
    return tags


def _peak(file: Path, store: Store, workspace: Path) -> float | None:
    if not file.is_file():
        return None
    link = read_link(file)
    run = store.find_run_anywhere(link.uid)
    if run is None:  # trained before the project had this store
        run = _run_elsewhere(link, workspace)
    if run is None:
        return None
    metrics = run.data.metrics
    peaks = [metrics[name] for name in metrics if name.removeprefix("joint_").startswith("peak_")]
    return max(peaks, default=None)


def _run_elsewhere(link: RunLink, workspace: Path) -> Any | None:
    """Return the run in the store that it was made in; None where that is not at hand."""
    from mlflow.exceptions import MlflowException

    file = sqlite_file(absolute_uri(link.tracking_uri, workspace))
    if file is not None and not file.is_file():
        return None
    with suppress(TrackingError, MlflowException):
        return find_run(link, workspace)
    return None
