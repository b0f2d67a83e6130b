"""What a version's training has cost and suffered, as tags that the gate reads."""

from pathlib import Path

from cfmvc.files import read_json
from cfmvc.tracking.run_link import read_link
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
    peaks = [_peak(results / "runs" / f"{stage}.json", store) for stage in _STAGES]
    known = [peak for peak in peaks if peak is not None]
    if len(known) == len(_STAGES):
        tags[PEAK_MEMORY_TAG] = f"{max(known):.4g}"
    return tags


def _peak(link: Path, store: Store) -> float | None:
    if not link.is_file():
        return None
    run = store.find_run_anywhere(read_link(link).uid)
    if run is None:
        return None
    metrics = run.data.metrics
    peaks = [metrics[name] for name in metrics if name.removeprefix("joint_").startswith("peak_")]
    return max(peaks, default=None)
