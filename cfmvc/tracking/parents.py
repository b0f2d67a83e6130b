"""Parent runs: one for all stages of a DVC command, or the one that ``mlflow run`` gives."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from filelock import FileLock

from cfmvc.errors import NotYetError
from cfmvc.tracking.process import ProcessIdentity
from cfmvc.tracking.spool import RunHeader
from cfmvc.tracking.store import Store, is_lost

PARENT_TAG = "mlflow.parentRunId"
UID_PREFIX = "uid:"  # names a parent by its tag `cfmvc.uid`, before MLflow has given it an id
SESSION_TAG, PROCESS_TAG, EXPERIMENT_TAG = "cfmvc.session", "cfmvc.process", "cfmvc.dvc_experiment"
_FAILED_TAG = "cfmvc.failed_stage"
# A parent says what the whole pipeline came from; the rest is its stages' own.
_SHARED_TAGS = ("cfmvc.git_commit", "cfmvc.git_branch", "cfmvc.git_dirty", "mlflow.user")


@dataclass(frozen=True)
class Place:
    """Where a stage's run belongs: its experiment, and its parent if it has one."""

    experiment_id: str
    parent_id: str | None


def open_place(store: Store, header: RunHeader) -> Place:
    """Find or make what a run hangs on; a parent of ours is set running."""
    if header.given_parent is not None:
        given = _given_parent(store, header, header.given_parent)
        if given is not None:
            # MLflow shows children below a parent in the parent's experiment alone.
            return Place(given.info.experiment_id, given.info.run_id)
    experiment_id = store.experiment_id(header.experiment)
    if header.session is None:
        return Place(experiment_id, None)
    with _alone(store):
        parent = _find(store, experiment_id, header)
        if parent is None:
            parent = store.client.create_run(
                experiment_id,
                start_time=header.started_ms,
                tags=_tags(header),
                run_name=_name(header),
            )
        elif parent.info.status != "RUNNING":
            store.client.update_run(parent.info.run_id, status="RUNNING")
    return Place(experiment_id, parent.info.run_id)


def _given_parent(store: Store, header: RunHeader, name: str) -> Any | None:
    """Find the parent that a run was given.

    Raises
    ------
    NotYetError
        If it is one of ours that is still to come: its process sends it at the same time.
    """
    if not name.startswith(UID_PREFIX):
        return _get_run(store, name)
    found = store.find_run(name.removeprefix(UID_PREFIX), store.experiment_ids())
    child = ProcessIdentity.parse(header.process)
    if found is None and child is not None and child.is_here() and child.is_alive():
        raise NotYetError(f"the parent run {name} is not there yet")
    return found


def close_parent(store: Store, child: Any, status: str, end_ms: int) -> None:
    """End the parent of a run that has ended, unless it is not ours or another stage runs on.

    A pipeline of which a stage failed has failed, even if other stages went on.
    """
    parent_id = child.data.tags.get(PARENT_TAG)
    parent = None if parent_id is None else _get_run(store, parent_id)
    if parent is None or SESSION_TAG not in parent.data.tags:
        return
    with _alone(store):
        if status == "FAILED":
            store.client.set_tag(parent_id, _FAILED_TAG, child.info.run_name)
        siblings = store.find_runs(
            [parent.info.experiment_id],
            f"tags.`{PARENT_TAG}` = '{parent_id}' and attributes.status = 'RUNNING'",
        )
        if any(run.info.run_id != child.info.run_id for run in siblings):
            return
        if status == "FINISHED" and _FAILED_TAG in parent.data.tags:
            status = "FAILED"
        store.client.set_terminated(parent_id, status, end_ms)


def reopen_parent(store: Store, child: Any, process: str) -> None:
    """Set the parent of a run that goes on running, if it is ours.

    What it was closed for, the end of that child, is no longer so.
    """
    parent_id = child.data.tags.get(PARENT_TAG)
    parent = None if parent_id is None else _get_run(store, parent_id)
    if parent is None or SESSION_TAG not in parent.data.tags:
        return
    with _alone(store):
        session = ProcessIdentity.parse(parent.data.tags.get(PROCESS_TAG, ""))
        if session is None or not (session.is_here() and session.is_alive()):
            store.client.set_tag(parent_id, PROCESS_TAG, process)
        if parent.data.tags.get(_FAILED_TAG) == child.info.run_name:
            store.client.delete_tag(parent_id, _FAILED_TAG)
        store.client.update_run(parent_id, status="RUNNING")


def _find(store: Store, experiment_id: str, header: RunHeader) -> Any | None:
    session = ProcessIdentity.parse(header.session or "")
    if session is None:
        return None
    # The start of a process is known to a second or so only: the exact text would not do.
    candidates = store.find_runs(
        [experiment_id], f"tags.`{SESSION_TAG}` LIKE '{session.host}:{session.pid}:%'"
    )
    for run in candidates:
        other = ProcessIdentity.parse(run.data.tags[SESSION_TAG])
        same_name = run.data.tags.get(EXPERIMENT_TAG, "") == header.session_name
        if other is not None and session.is_same(other) and same_name:
            return run
    return None


def _tags(header: RunHeader) -> dict[str, str]:
    tags = {name: header.tags[name] for name in _SHARED_TAGS if name in header.tags}
    tags |= {SESSION_TAG: header.session or "", PROCESS_TAG: header.session or ""}
    if header.session_name:
        tags[EXPERIMENT_TAG] = header.session_name
    return {**tags, "mlflow.source.name": "dvc", "mlflow.source.type": "LOCAL"}


def _name(header: RunHeader) -> str:
    """Return ``pipeline 1a2b3c4`` (``+`` for a changed tree), or the DVC experiment's name."""
    if header.session_name:
        return f"pipeline {header.session_name}"
    commit = header.tags.get("cfmvc.git_commit", "")[:7]
    changed = "+" if header.tags.get("cfmvc.git_dirty") == "true" else ""
    return f"pipeline {commit}{changed}".strip()


def _get_run(store: Store, run_id: str) -> Any | None:
    """Return a run; None if there is none, or somebody has deleted it: it takes nothing more."""
    try:
        run = store.client.get_run(run_id)
    except Exception as error:
        if is_lost(error):
            return None
        raise
    return None if run.info.lifecycle_stage == "deleted" else run


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    folder = store.home / ".cfmvc"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "parents.lock"):
        yield
