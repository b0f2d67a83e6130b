"""What processes have left in the spool: those that died, or found no store to send it to."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from cfmvc.errors import TrackingError
from cfmvc.tracking.process import ProcessIdentity
from cfmvc.tracking.shipment import Shipment
from cfmvc.tracking.spool import Spool, spools
from cfmvc.tracking.store import Store, first_line
from cfmvc.tracking.sweep import sweep


@dataclass
class SyncReport:
    """What ``cfmvc sync`` did.

    Parameters
    ----------
    sent
        Runs that are complete in MLflow now: stage, uid and number of records.
    left
        Runs of which records remain on disk, with the reason.
    killed
        Runs that were found RUNNING without a process, and are KILLED now.
    """

    sent: list[dict[str, Any]]
    left: list[dict[str, Any]]
    killed: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def leftovers(home: Path) -> list[Spool]:
    """Return the spools that nobody will send any more, the oldest first."""
    return [spool for spool in spools(home) if not _has_sender(spool)]


def send_leftover(spool: Spool, store: Store) -> bool:
    """Send a spool to its end, and remove it; False if another process is at it.

    A run that has no end was killed: it is marked so, with the time of its last record.
    """
    try:
        with spool.lock.acquire(blocking=False):
            if not spool.is_there():
                return False  # another process has just finished it
            shipment = Shipment(spool, store)
            if not shipment.send() and not spool.has_ended():
                shipment.end_of_dead()
            spool.remove()
    except Timeout:
        return False
    return True


def sync(home: Path, uri: str, send_to: str | None = None) -> SyncReport:
    """Send all that is spooled, and mark the runs of processes that are gone.

    Parameters
    ----------
    home
        Folder of the project.
    uri
        Address of the store in force, which is swept as well.
    send_to
        Send everything here, and not to the address that each run was started with.
    """
    report, stores = SyncReport([], [], []), dict[str, Store | TrackingError]()
    for spool in leftovers(home):
        address = send_to or spool.header.uri
        run = {"stage": spool.header.stage, "uid": spool.header.uid}
        n_records, n_done = spool.count_pending(), 0
        try:
            if send_leftover(spool, _connected(stores, address, home)):
                report.sent.append({**run, "n_records": n_records})
        except Exception as error:  # any driver's own error: the records stay where they are
            n_done = n_records - spool.count_pending()
            report.left.append(
                {**run, "n_records": n_records - n_done, "reason": first_line(error)}
            )
    for spool in spools(home):
        if _has_sender(spool):
            reason = "still running: it sends its records itself"
            run = {"stage": spool.header.stage, "uid": spool.header.uid}
            report.left.append({**run, "n_records": spool.count_pending(), "reason": reason})
    try:
        report.killed += sweep(_connected(stores, send_to or uri, home))
    except TrackingError:
        if not report.left:
            raise
    return report


def _has_sender(spool: Spool) -> bool:
    """Return whether the process of a spool is still at work on it."""
    process = ProcessIdentity.parse(spool.header.process)
    if process is None or not process.is_here():
        return False
    return process.is_alive() and not spool.has_ended()


def _connected(stores: dict[str, Store | TrackingError], uri: str, home: Path) -> Store:
    """Connect once an address; one that does not answer is not asked again."""
    if uri not in stores:
        try:
            stores[uri] = Store.connect(uri, home)
        except TrackingError as error:
            stores[uri] = error
    store = stores[uri]
    if isinstance(store, TrackingError):
        raise store
    return store
