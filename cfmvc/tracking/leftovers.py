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
        Runs of which records remain on disk although they should not, with the reason.
    killed
        Runs that were found RUNNING without a process, and are KILLED now.
    at_work
        Runs that send their records themselves, or may do so on another host: left alone.
    """

    sent: list[dict[str, Any]]
    left: list[dict[str, Any]]
    killed: list[dict[str, Any]]
    at_work: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def leftovers(home: Path, is_forced: bool = False) -> list[Spool]:
    """Return the spools that nobody will send any more, the oldest first.

    Of processes on other hosts nothing is known: theirs are returned only if it is forced.
    """
    return [spool for spool in spools(home) if _sender(spool, is_forced) is None]


def send_leftover(spool: Spool, store: Store, is_forced: bool = False) -> bool:
    """Send a spool to its end, and remove it; False if another process is at it.

    A run that has no end was killed: it is marked so, with the time of its last record.
    """
    try:
        with spool.lock.acquire(blocking=False):
            now = Spool.open(spool.folder)
            if now is None or _sender(now, is_forced) is not None:
                return False  # another process has just finished it, or goes on with its training
            shipment = Shipment(spool, store)
            if not shipment.send() and not spool.has_ended():
                shipment.end_of_dead()
            spool.remove()
    except Timeout:
        return False
    return True


def sync(home: Path, uri: str, send_to: str | None = None, is_forced: bool = False) -> SyncReport:
    """Send all that is spooled, and mark the runs of processes that are gone.

    Parameters
    ----------
    home
        Folder of the project.
    uri
        Address of the store in force, which is swept as well.
    send_to
        Send everything here, and not to the address that each run was started with.
    is_forced
        Send also what processes of other hosts have written, as if they were dead.
    """
    report, stores = SyncReport([], [], [], []), dict[str, Store | TrackingError]()
    for spool in leftovers(home, is_forced):
        address = send_to or spool.header.uri
        run = {"stage": spool.header.stage, "uid": spool.header.uid}
        n_records, n_done = spool.count_pending(), 0
        try:
            if send_leftover(spool, _connected(stores, address, home), is_forced):
                report.sent.append({**run, "n_records": n_records})
        except Exception as error:  # any driver's own error: the records stay where they are
            n_done = n_records - spool.count_pending()
            report.left.append(
                {**run, "n_records": n_records - n_done, "reason": first_line(error)}
            )
    for spool in spools(home):
        reason = _sender(spool, is_forced)
        if reason is not None:
            run = {"stage": spool.header.stage, "uid": spool.header.uid}
            report.at_work.append({**run, "n_records": spool.count_pending(), "reason": reason})
    try:
        report.killed += sweep(_connected(stores, send_to or uri, home))
    except TrackingError:
        if not report.left:
            raise
    return report


def _sender(spool: Spool, is_forced: bool) -> str | None:
    """Return who is, or may be, at work on a spool; None if nobody is."""
    process = ProcessIdentity.parse(spool.header.process)
    if process is None:
        return None
    if not process.is_here():
        where = f"of another host, {process.host}: if nothing runs there any more"
        return None if is_forced else f"{where}, `cfmvc sync --force` sends it"
    if process.is_alive() and not spool.has_ended():
        return "still running: it sends its records itself"
    return None


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
