"""Runs below another one of ours, one after the other; no one waits for the store between them."""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cfmvc.tracking.config import TrackingConfig, home_of
from cfmvc.tracking.parents import UID_PREFIX
from cfmvc.tracking.run import close, header_of, recorded
from cfmvc.tracking.shipper import Shipper
from cfmvc.tracking.spool import Spool, spool_root
from cfmvc.tracking.spool_tracker import SpoolTracker

_MOST_UNSENT = 4


class ChildRuns:
    """The children of a run: each is sent while the next one is at work.

    Parameters
    ----------
    parent_uid
        The parent's tag ``cfmvc.uid``; it need not be in the store yet.
    workspace, config
        As for :func:`~cfmvc.tracking.run.stage_run`.
    """

    def __init__(self, parent_uid: str, workspace: Path, config: TrackingConfig) -> None:
        self._parent = UID_PREFIX + parent_uid
        self._workspace, self._config = workspace, config
        self._unsent: deque[tuple[Spool, Shipper]] = deque()

    @contextmanager
    def open(self, name: str, uid: str, tags: Mapping[str, str]) -> Iterator[SpoolTracker]:
        """Open a run; it ends as that of a stage does.

        Parameters
        ----------
        name, uid, tags
            Of the run.
        """
        header = header_of(name, self._workspace, self._config, tags)
        header = replace(header, uid=uid, given_parent=self._parent)
        spool = Spool.create(spool_root(home_of(self._workspace)), header)
        shipper = Shipper(spool, self._workspace)
        self._unsent.append((spool, shipper))
        with recorded(spool, shipper, self._workspace) as tracker:
            yield tracker
        while len(self._unsent) > _MOST_UNSENT:
            self._close_oldest()

    def settle(self) -> None:
        """Wait until all are sent, or say what is not."""
        while self._unsent:
            self._close_oldest()

    def _close_oldest(self) -> None:
        close(*self._unsent.popleft(), self._workspace, self._config)
