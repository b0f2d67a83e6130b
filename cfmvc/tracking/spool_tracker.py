"""The tracker of a stage: it writes to the spool, and a shipper behind it has it sent."""

import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cfmvc.files import write_json
from cfmvc.tracking.config import shareable_uri
from cfmvc.tracking.run_link import RunLink
from cfmvc.tracking.shipper import Shipper
from cfmvc.tracking.spool import Record, Spool, plain

_EVENTS = "events"


class SpoolTracker:
    """Takes what a stage says, in microseconds; see :class:`~cfmvc.tracking.tracker.Tracker`.

    Parameters
    ----------
    spool
        The run's folder.
    shipper
        Sends the spool in the background.
    home
        Folder of the project.
    """

    def __init__(self, spool: Spool, shipper: Shipper, home: Path) -> None:
        self._spool = spool
        self._shipper = shipper
        self.home = home
        self._n_events: Counter[str] = Counter()
        self._n_lines: dict[str, int] = {}

    @property
    def uid(self) -> str:
        """Name of the run, its tag ``cfmvc.uid`` in MLflow."""
        return self._spool.header.uid

    @property
    def uri(self) -> str:
        """Address of the store."""
        return self._spool.header.uri

    @property
    def lineage(self) -> dict[str, str]:
        """Tags that say what the run came from."""
        return dict(self._spool.header.tags)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters; a name keeps its first value."""
        self._append("params", values={name: str(value) for name, value in params.items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record figures at a step."""
        values = {name: float(value) for name, value in metrics.items()}
        self._append("metrics", step=int(step), values=values)

    def log_event(self, kind: str, details: Mapping[str, Any], step: int) -> None:
        """Count an event at its step, and append its details to ``events/<kind>.jsonl``."""
        self._n_events[kind] += 1
        file = f"{_EVENTS}/{kind}.jsonl"
        try:
            self._write_event(kind, self._spool.folder / file, {"step": int(step), **details})
        except OSError as error:
            self._spool.warn(error)
        counts = {f"{kind}_events": float(self._n_events[kind])}
        self._append("metrics", step=int(step), values=counts, is_count=True)
        self._append("artifact", file=file, folder=_EVENTS)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Record a copy of a file or folder as it is now, under ``folder``."""
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder to log as an artifact")
        self._keep(path.name, folder, lambda made: _copy(path, made))

    def log_figure(self, figure: Any, name: str) -> None:
        """Record a matplotlib figure as PNG."""
        folder, _, file = name.rpartition("/")
        file = file if file.endswith(".png") else f"{file}.png"
        self._keep(file, folder, lambda made: figure.savefig(made, format="png", dpi=150))

    def log_text(self, text: str, name: str) -> None:
        """Record a text as an artifact; ``name`` may contain folders."""
        folder, _, file = name.rpartition("/")
        # byte for byte on every machine: md5s of such files are kept
        self._keep(file, folder, lambda made: made.write_bytes(text.encode()))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags; the last value of a name stands."""
        self._append("tags", values={name: str(value) for name, value in tags.items()})

    def write_link(self, path: Path) -> None:
        """Write which run this is as a stage output, so that a restored output leads to it."""
        link = RunLink(self.uid, self._spool.header.stage, shareable_uri(self.uri, self.home))
        write_json(path, link.as_json())

    def wait_for_run(self, seconds: float) -> str:
        """Wait until the run exists in MLflow, and return its id.

        Raises
        ------
        TrackingError
            If the store does not answer in time.
        """
        return self._shipper.wait_for_run(seconds)

    def _append(self, kind: str, **content: Any) -> None:
        record: Record = {"kind": kind, **content}
        self._spool.append(record)

    def _write_event(self, kind: str, path: Path, line: Mapping[str, Any]) -> None:
        """Append a line, unless a process that was killed, and is gone on from, has written it."""
        path.parent.mkdir(exist_ok=True)
        if kind not in self._n_lines:
            self._n_lines[kind] = _whole_lines(path)
        if self._n_events[kind] > self._n_lines[kind]:
            with path.open("a") as stream:
                stream.write(_json_line(line))

    def _keep(self, name: str, folder: str, write: Any) -> None:
        kept = self._spool.folder / "artifacts" / uuid.uuid4().hex[:12] / name
        try:
            kept.parent.mkdir(parents=True)
            write(kept)
        except OSError as error:
            self._spool.warn(error)
            return
        self._append("artifact", file=str(kept.relative_to(self._spool.folder)), folder=folder)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _whole_lines(path: Path) -> int:
    """Count the lines of a file, of which a kill may have cut off the last one: that one goes."""
    if not path.exists():
        return 0
    whole = path.read_bytes().rpartition(b"\n")
    if whole[2]:
        os.truncate(path, len(whole[0]) + len(whole[1]))
    return whole[0].count(b"\n") + len(whole[1])


def _json_line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, default=plain) + "\n"
