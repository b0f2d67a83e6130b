"""The run of one stage: opened, described, and closed as what it was."""

import json
import os
import signal
import sys
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cfmvc.errors import CfmvcError, Preempted, StoppedEarly
from cfmvc.tracking.config import TrackingConfig, home_of, shareable_uri, tracking_uri
from cfmvc.tracking.origin import Origin, machine, origin_of
from cfmvc.tracking.process import ProcessIdentity, dvc_ancestor, experiment_name
from cfmvc.tracking.resumption import KeptOn
from cfmvc.tracking.shipper import Shipper
from cfmvc.tracking.spool import RunHeader, Spool, now_ms, spool_root
from cfmvc.tracking.spool_tracker import SpoolTracker

# `mlflow run` names the run that it made; whoever starts stages otherwise may name one as well.
_PARENT_VARIABLES = ("CFMVC_PARENT_RUN", "MLFLOW_RUN_ID")
TAGS_VARIABLE = "CFMVC_RUN_TAGS"  # JSON


class Terminated(SystemExit):
    """SIGTERM, as an exception, so that the run can be closed; exits with 128 + 15."""

    def __init__(self) -> None:
        super().__init__(143)

    def __str__(self) -> str:
        return "terminated by SIGTERM"


@contextmanager
def stage_run(
    stage: str,
    workspace: Path,
    config: TrackingConfig,
    tags: Mapping[str, str] | None = None,
    resumption: KeptOn | None = None,
) -> Iterator[SpoolTracker]:
    """Open the run of a stage; nothing in it waits for MLflow.

    The run ends FINISHED, FAILED (an exception, or an exit code other than 0) or KILLED (Ctrl-C,
    SIGTERM). What a store that does not answer has missed stays in ``.cfmvc/spool``.

    Parameters
    ----------
    stage
        Name of the stage, and of the run.
    workspace
        The project's folder.
    config
        Where runs are kept.
    tags
        More tags than the lineage.
    resumption
        Finds the run that what was killed goes on in.
    """
    home, origin = home_of(workspace), origin_of(workspace, stage)
    header = header_of(stage, workspace, config, {**origin.tags, **_given_tags(), **(tags or {})})
    if resumption is None:
        spool = Spool.create(spool_root(home), header)
    else:
        spool = resumption.open_spool(home, header)
    with _opened(spool, workspace, config, lambda tracker: _record(origin, tracker, spool)) as run:
        yield run
    if resumption is not None:
        resumption.forget()


@contextmanager
def _opened(
    spool: Spool, workspace: Path, config: TrackingConfig, begin: Callable[[SpoolTracker], None]
) -> Iterator[SpoolTracker]:
    """Send a spool while the block lasts, and wait until it is sent."""
    shipper = Shipper(spool, workspace)
    with _heard_once() as sigterm:  # also after the block, while the end is sent
        try:
            with recorded(spool, shipper, workspace, begin) as tracker:
                yield tracker
        finally:
            sigterm.is_over = True
            close(spool, shipper, workspace, config)


@contextmanager
def recorded(
    spool: Spool,
    shipper: Shipper,
    workspace: Path,
    begin: Callable[[SpoolTracker], None] = lambda tracker: None,
) -> Iterator[SpoolTracker]:
    """Record in a spool what happens in the block, and how it ends; it is sent meanwhile."""
    tracker = SpoolTracker(spool, shipper, home_of(workspace))
    status, failure = "FINISHED", dict[str, str]()
    with _heard_once() as sigterm:
        try:
            try:
                shipper.start()
                begin(tracker)
                yield tracker
            finally:
                sigterm.is_over = True  # the closing is short, and nothing is to disturb it
        except BaseException as error:
            status, failure = _ending(error)
            if status == "FAILED" and not isinstance(error, CfmvcError | SystemExit):
                tracker.log_text(traceback.format_exc(), "traceback.txt")
            raise
        finally:
            spool.append({"kind": "end", "status": status, "tags": failure})


def close(spool: Spool, shipper: Shipper, workspace: Path, config: TrackingConfig) -> None:
    """Wait until a spool is sent, or say what is not."""
    _say_what_is_missing(spool, shipper.close(config.flush_seconds), workspace)


def header_of(
    stage: str, workspace: Path, config: TrackingConfig, tags: Mapping[str, str]
) -> RunHeader:
    """Return what is known of a run when it starts."""
    session = dvc_ancestor()
    given = next((os.environ[name] for name in _PARENT_VARIABLES if os.environ.get(name)), None)
    return RunHeader(
        uid=uuid.uuid4().hex,
        stage=stage,
        uri=tracking_uri(config, workspace),
        experiment=config.experiment,
        process=str(ProcessIdentity.own()),
        started_ms=now_ms(),
        given_parent=given,
        session=None if session is None else str(session),
        session_name=experiment_name(),
        tags={**tags, "cfmvc.stage": stage},
    )


def _given_tags() -> dict[str, str]:
    """Return the tags that whoever starts stages gives to all of their runs."""
    return dict(json.loads(os.environ.get(TAGS_VARIABLE) or "{}"))


def _record(origin: Origin, tracker: SpoolTracker, spool: Spool) -> None:
    """Keep what the run comes from; of one that goes on, what it goes on with."""
    here = machine()  # only now: the store is being opened meanwhile
    tracker.set_tags(here.tags | (origin.tags if spool.header.n_resumed else {}))
    for name, text in (origin.files | here.files).items():
        tracker.log_text(text, name)


def _ending(error: BaseException) -> tuple[str, dict[str, str]]:
    if isinstance(error, StoppedEarly):
        return "KILLED", {}
    if isinstance(error, KeyboardInterrupt | Terminated | Preempted):
        return "KILLED", {"cfmvc.error": str(error) or "interrupted"}
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return "FINISHED", {}
    return "FAILED", {"cfmvc.error": f"{type(error).__name__}: {error}"}


def _say_what_is_missing(spool: Spool, reason: str | None, workspace: Path) -> None:
    if spool.rejected.exists():
        print(f"tracking: the store refused some values; see {spool.rejected}", file=sys.stderr)
    if reason is None:
        return
    spool.close()
    print(
        f"tracking: {spool.count_pending()} records kept in .cfmvc/spool "
        f"({shareable_uri(spool.header.uri, workspace)}: {reason}); "
        "`cfmvc sync` sends them",
        file=sys.stderr,
    )


class _Sigterm:
    """Turns the first SIGTERM into an exception, and none once it is over.

    Impatient schedulers, and ``mlflow run``, send several.
    """

    def __init__(self) -> None:
        self.is_over = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.is_over:
            self.is_over = True
            raise Terminated


@contextmanager
def _heard_once() -> Iterator[_Sigterm]:
    """Listen to SIGTERM, where this is the thread that hears signals."""
    sigterm = _Sigterm()
    if threading.current_thread() is not threading.main_thread():
        yield sigterm
        return
    before = signal.signal(signal.SIGTERM, sigterm)
    try:
        yield sigterm
    finally:
        signal.signal(signal.SIGTERM, before)
