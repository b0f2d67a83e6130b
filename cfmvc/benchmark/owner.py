"""The run of a whole benchmark in MLflow: one, however often the benchmark is killed and begun."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cfmvc.benchmark.plan import Plan
from cfmvc.config import section_of
from cfmvc.files import read_json, write_json
from cfmvc.tracking.config import TrackingConfig, home_of, shareable_uri, tracking_uri
from cfmvc.tracking.tracker import NullTracker, Tracker


@dataclass(frozen=True)
class BenchmarkRun:
    """Where a benchmark's figures go.

    Parameters
    ----------
    tracker
        Of its run.
    uid
        Name of that run, for its children; None: nobody keeps track.
    """

    tracker: Tracker
    uid: str | None = None


@contextmanager
def benchmark_run(plan: Plan, workspace: Path, is_all_there: bool) -> Iterator[BenchmarkRun]:
    """Open the benchmark's run, or go on with it.

    One that is finished, with nothing left to compute, is left as it is. If another process has it
    open, that one writes it: this one's children hang on it all the same.

    Parameters
    ----------
    plan
        The benchmark.
    workspace
        The project's folder.
    is_all_there
        Whether every fold and seed was computed before.
    """
    from cfmvc.tracking import stage_run
    from cfmvc.tracking.resumption import SharedRun

    config = section_of(plan.params, "tracking", TrackingConfig)
    home = home_of(workspace)
    store = shareable_uri(tracking_uri(config, workspace), workspace)
    note = home / ".cfmvc" / "benchmark" / "runs" / f"{plan.key}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        is_ours = True
        try:
            stack.enter_context(FileLock(note.with_suffix(".lock")).acquire(timeout=0))
        except Timeout:
            is_ours = False
        known = _known(note, store)
        if not is_ours or (known and known["is_finished"] and is_all_there):
            yield BenchmarkRun(NullTracker(), known["uid"] if known else None)
            return
        said = {"uid": known["uid"] if known else uuid.uuid4().hex, "store": store}
        write_json(note, {**said, "is_finished": False})
        shared = SharedRun(said["uid"], is_new=not known)
        tags = {"cfmvc.task": plan.task, "cfmvc.data": plan.data.name}
        with stage_run("benchmark", workspace, config, tags, resumption=shared) as tracker:
            tracker.log_params(_facts(plan))
            yield BenchmarkRun(tracker, said["uid"])
        write_json(note, {**said, "is_finished": True})


def _known(note: Path, store: str) -> dict[str, Any] | None:
    """Return what is noted of the run; None if there is none, or it is in another store."""
    if not note.is_file():
        return None
    known: dict[str, Any] = read_json(note)
    return known if known["store"] == store else None


def _facts(plan: Plan) -> dict[str, Any]:
    return {
        "task": plan.task,
        "data": plan.data.name,
        "folds": ", ".join(fold.name for _, fold in plan.folds),
        "seeds": ", ".join(map(str, plan.seeds)),
    }
