"""What a version's training has cost and suffered, as tags that the gate reads."""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cfmvc.errors import TrackingError
from cfmvc.files import read_json
from cfmvc.tracking.config import absolute_uri, sqlite_file
from cfmvc.tracking.run_link import RunLink, find_run, read_link
from cfmvc.tracking.store import Store

NAN_STEPS_TAG, PEAK_MEMORY_TAG = "cfmvc.nan_steps", "cfmvc.peak_memory_gib"
STAGES = ("train_vae", "train_flow")
_RESULTS = Path("results")
FIGURES = tuple(_RESULTS / f"{stage}.json" for stage in STAGES)


def training_facts(workspace: Path, store: Store) -> dict[str, str]:
    """Return the tags; what is not known is left out.

    Vetoed updates stand in the stages' outputs. Memory is the machine's business, so it is asked of
    the runs that the outputs link to.
    """
    figures = [workspace / path for path in FIGURES]
    tags = {}
    if all(path.is_file() for path in figures):
        tags[NAN_STEPS_TAG] = nan_steps_of(figures)
    links = [workspace / _RESULTS / "runs" / f"{stage}.json" for stage in STAGES]
    peak = peak_memory_of(_run(link, store, workspace) for link in links)
    return tags if peak is None else tags | {PEAK_MEMORY_TAG: peak}


def recorded(tags: Mapping[str, str], name: str) -> float | None:
    """Return the number that a tag holds; None where there is none, or somebody made it none."""
    try:
        number = float(tags.get(name, ""))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def nan_steps_of(figures: Iterable[Path]) -> str:
    """Return the vetoed updates of all stages, as the tag has them."""
    return str(sum(int(read_json(path)["nan_steps"]) for path in figures))


def peak_memory_of(runs: Iterable[Any | None]) -> str | None:
    """Return the most memory of any stage, as the tag has it; None if not all have told theirs."""
    peaks = [None if run is None else _peak(run.data.metrics) for run in runs]
    known = [peak for peak in peaks if peak is not None]
    return f"{max(known):.4g}" if len(known) == len(peaks) else None


def _peak(metrics: dict[str, float]) -> float | None:
    peaks = [metrics[name] for name in metrics if name.removeprefix("joint_").startswith("peak_")]
    return max(peaks, default=None)


def _run(file: Path, store: Store, workspace: Path) -> Any | None:
    if not file.is_file():
        return None
    link = read_link(file)
    run = store.find_run_anywhere(link.uid)
    # else it was trained before the project had this store
    return _run_elsewhere(link, workspace) if run is None else run


def _run_elsewhere(link: RunLink, workspace: Path) -> Any | None:
    """Return the run in the store that it was made in; None where that is not at hand."""
    from mlflow.exceptions import MlflowException

    file = sqlite_file(absolute_uri(link.tracking_uri, workspace))
    if file is not None and not file.is_file():
        return None
    with suppress(TrackingError, MlflowException):
        return find_run(link, workspace)
    return None
