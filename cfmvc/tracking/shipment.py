"""Sends one spool to MLflow, from where it was acknowledged, so that nothing is lost or doubled.

Records are acknowledged after they were taken. A kill in between sends them once more, which
changes nothing: MLflow keeps one of equal (name, step, time, value), parameters and tags are
idempotent, files are replaced, and a run is found again by its tag ``cfmvc.uid``. A training that
was killed and goes on says again what MLflow has already: that is passed over.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cfmvc.tracking.contents import LONGEST_TAG, Contents, key
from cfmvc.tracking.parents import (
    PARENT_TAG,
    PROCESS_TAG,
    close_parent,
    open_place,
    reopen_parent,
)
from cfmvc.tracking.recorded import NothingRecorded, Recorded
from cfmvc.tracking.spool import Acknowledged, Record, RunHeader, Spool, moved_on
from cfmvc.tracking.store import UID_TAG, Store, first_line, is_lost, is_refusal

_MOST_METRICS, _MOST_VALUES = 900, 90  # MLflow takes 1000 entities a request, 100 of them values
_ERROR_TAG = "cfmvc.error"


class Shipment:
    """Sends a spool; the caller holds the spool's lock.

    Parameters
    ----------
    spool
        What to send.
    store
        Where to.
    """

    def __init__(self, spool: Spool, store: Store) -> None:
        self._spool = spool
        self._store = store
        self._state = spool.acknowledged()
        self._last_ms = spool.header.started_ms
        self._recorded: Recorded | NothingRecorded | None = None
        if self._state.uri != store.uri:
            self._state = self._found_elsewhere(self._state)

    @property
    def run_id(self) -> str | None:
        """The MLflow run, once it exists."""
        return self._state.run_id

    def send(self) -> bool:
        """Send all that is there, and return whether the run has ended with it.

        Raises
        ------
        Exception
            Whatever MLflow and its drivers raise while the store cannot be reached.
        """
        try:
            self._ensure_run()
            has_ended = False  # an end is none where a process went on after it
            for records, offset in self._spool.pending(self._state.offset):
                has_ended = self._send_chunk(Contents.of(records))
                self._remember(moved_on(self._state, offset, len(records)))
            return has_ended
        except Exception as error:
            # The store was made anew, or somebody has deleted the run: begin from the start.
            if is_lost(error) or (is_refusal(error) and self._is_deleted()):
                self._remember(Acknowledged(uri=self._store.uri))
            raise

    def end_of_dead(self) -> None:
        """End the run of a process that died without a word; a deleted one has ended."""
        if self._is_deleted():
            return
        self._terminate({"status": "KILLED", "ms": self._last_ms, "tags": {}})

    def _ensure_run(self) -> None:
        if self._state.run_id is not None:
            return
        header = self._spool.header
        # A run that is gone on with stays where it is, below whatever parent.
        everywhere = self._store.experiment_ids() if header.n_resumed else []
        run = self._store.find_run(header.uid, everywhere) if everywhere else None
        run = run or self._placed_run(header)
        self._remember(replace(self._state, run_id=run.info.run_id, uri=self._store.uri))

    def _placed_run(self, header: RunHeader) -> Any:
        """Find or make the run in the place where its process belongs."""
        place = open_place(self._store, header)
        # An earlier request may have been carried out although its answer was lost.
        run = self._store.find_run(header.uid, [place.experiment_id])
        if run is not None:
            return run
        tags = {key(name): value[:LONGEST_TAG] for name, value in header.tags.items()}
        tags |= {UID_TAG: header.uid, PROCESS_TAG: header.process}
        if place.parent_id is not None:
            tags[PARENT_TAG] = place.parent_id
        return self._store.client.create_run(
            place.experiment_id, start_time=header.started_ms, tags=tags, run_name=header.stage
        )

    def _found_elsewhere(self, state: Acknowledged) -> Acknowledged:
        """Go on in a store of another address only if it knows the run (a server that moved)."""
        fresh = Acknowledged(uri=self._store.uri)
        if state.run_id is None:
            return fresh
        run = self._store.find_run(self._spool.header.uid, self._store.experiment_ids())
        known = run is not None and run.info.run_id == state.run_id
        return replace(state, uri=self._store.uri) if known else fresh

    def _remember(self, state: Acknowledged) -> None:
        self._spool.acknowledge(state)
        self._state = state

    def _send_chunk(self, contents: Contents) -> bool:
        from mlflow.entities import Metric, Param, RunTag

        self._last_ms = contents.last_ms or self._last_ms
        if contents.is_resumed:
            self._reopen()
        recorded = self._known()
        new_params = recorded.new_params(contents.params)
        new_points = recorded.new_points(contents.metrics, contents.counts)
        params = [Param(name, value) for name, value in new_params.items()]
        tags = [RunTag(name, value) for name, value in contents.tags.items()]
        metrics = [Metric(*values) for values in new_points]
        for start in range(0, len(params), _MOST_VALUES):
            self._log("params", params[start : start + _MOST_VALUES])
        for start in range(0, len(tags), _MOST_VALUES):
            self._log("tags", tags[start : start + _MOST_VALUES])
        for start in range(0, len(metrics), _MOST_METRICS):
            self._log("metrics", metrics[start : start + _MOST_METRICS])
        for file, folder in contents.artifacts:
            self._upload(self._spool.folder / file, folder or None)
        if contents.end is None:
            return False
        self._terminate(contents.end)
        return True

    def _log(self, kind: str, items: list[Any]) -> None:
        """Send values; where some are refused for good, the others pass all the same."""
        try:
            self._store.client.log_batch(self._state.run_id, **{kind: items})
        except Exception as error:
            if not is_refusal(error) or self._is_deleted():
                raise
            if len(items) == 1:
                self._spool.reject(str(items[0]), first_line(error))
                return
            half = len(items) // 2
            self._log(kind, items[:half])
            self._log(kind, items[half:])

    def _upload(self, path: Path, folder: str | None) -> None:
        client, run_id = self._store.client, self._state.run_id
        try:
            if path.is_dir():
                client.log_artifacts(run_id, str(path), f"{folder or ''}/{path.name}".lstrip("/"))
            elif path.exists():
                client.log_artifact(run_id, str(path), folder)
            else:
                self._spool.reject(str(path), "the file is gone")
        except Exception as error:
            if not is_refusal(error) or self._is_deleted():
                raise
            self._spool.reject(str(path), first_line(error))

    def _is_deleted(self) -> bool:
        """Return whether somebody has deleted the run, as far as the store can tell."""
        if self._state.run_id is None:
            return False
        try:
            run = self._store.client.get_run(self._state.run_id)
        except Exception:  # it does not answer, or knows no such run
            return False
        return bool(run.info.lifecycle_stage == "deleted")

    def _known(self) -> Recorded | NothingRecorded:
        """Return what an earlier process has recorded; asked once, before anything is sent."""
        if self._recorded is None:
            is_resumed, run_id = self._spool.header.n_resumed > 0, str(self._state.run_id)
            client = self._store.client
            self._recorded = Recorded(client, run_id) if is_resumed else NothingRecorded()
        return self._recorded

    def _reopen(self) -> None:
        """Let a run go on whose process was killed, whatever it was closed as."""
        client, run_id, header = self._store.client, self._state.run_id, self._spool.header
        run = client.get_run(run_id)
        # First of all whose it is: a run that says RUNNING of a dead process is swept up.
        client.set_tag(run_id, PROCESS_TAG, header.process)
        client.set_tag(run_id, "cfmvc.resumed", str(header.n_resumed))
        if _ERROR_TAG in run.data.tags:
            client.delete_tag(run_id, _ERROR_TAG)
        client.update_run(run_id, status="RUNNING")
        reopen_parent(self._store, run, header.process)

    def _terminate(self, end: Record) -> None:
        client, run_id, status = self._store.client, self._state.run_id, end["status"]
        for name, value in end["tags"].items():
            client.set_tag(run_id, key(name), value[:LONGEST_TAG])
        client.set_terminated(run_id, status, end["ms"])
        close_parent(self._store, client.get_run(run_id), status, end["ms"])
