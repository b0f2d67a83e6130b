"""The thread that sends a stage's spool while the stage works; nobody waits for it."""

import importlib
import threading
import time
from contextlib import suppress
from pathlib import Path

from cfmvc.errors import NotYetError
from cfmvc.tracking.access import denial
from cfmvc.tracking.delivery import Delivery
from cfmvc.tracking.leftovers import leftovers, send_leftover
from cfmvc.tracking.shipment import Shipment
from cfmvc.tracking.spool import Spool
from cfmvc.tracking.store import Store, first_line
from cfmvc.tracking.sweep import sweep

_POLL_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_MOST_WAITS = 20  # at the end, for what another one has still to send


class Sender:
    """Sends one spool in the background, and after that what dead processes have left.

    Parameters
    ----------
    spool
        What to send.
    workspace
        The project's folder.
    delivery
        Is told how far it has come.
    """

    def __init__(self, spool: Spool, workspace: Path, delivery: Delivery) -> None:
        self._spool = spool
        self._workspace = workspace
        self._delivery = delivery
        self._thread = threading.Thread(target=self._work, name="cfmvc-sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        _import_polars()
        self._thread.start()

    def finish(self) -> None:
        """Send the rest without a pause: the stage is over."""
        self._delivery.begin_closing()

    def _work(self) -> None:
        self._delivery.report(has_begun=True)
        pause, n_waits = 1.0, 0
        while True:
            try:
                self._send()
                return
            except NotYetError as error:
                # No failure at first: another thread or process is about to send it.
                n_waits += self._delivery.is_closing
                if n_waits > _MOST_WAITS:
                    self._delivery.report(failure=first_line(error))
                    return
                time.sleep(_POLL_SECONDS)  # closing, too: it is not for us to make haste
            except Exception as error:  # whatever it was, the records are on disk
                is_denied = denial(error) is not None
                self._delivery.report(failure=first_line(error), is_denied=is_denied)
                if self._delivery.is_closing:
                    return
                self._delivery.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _send(self) -> None:
        store = Store.connect(
            self._spool.header.uri,
            self._workspace,
            lambda: self._delivery.report(has_answered=True),
        )
        with self._spool.lock.acquire():
            if self._spool.is_there():  # or `cfmvc sync` was quicker
                self._send_to(store)
        self._delivery.report(failure=None, is_denied=False, is_done=True)

    def _send_to(self, store: Store) -> None:
        shipment = Shipment(self._spool, store)
        is_first = True
        while True:
            has_ended = shipment.send()
            self._delivery.report(run_id=shipment.run_id, failure=None, is_denied=False)
            if has_ended:
                break
            if is_first:
                self._tidy(store)
                is_first = False
            self._delivery.sleep(_POLL_SECONDS)
        self._spool.remove()

    def _tidy(self, store: Store) -> None:
        """Send what dead processes have left for this store; a failure there is not this run's."""
        with suppress(Exception):
            for spool in leftovers(store.home):
                if self._delivery.is_closing:
                    return
                with suppress(Exception):  # nor that of the other leftovers
                    if spool.header.uri == store.uri:
                        send_leftover(spool, store)
            sweep(store)


def _import_polars() -> None:
    """Import polars, where it is installed, before the thread would do so with MLflow.

    scikit-learn looks for it among the modules that are loaded, and one that another thread is only
    half done with breaks it.
    """
    with suppress(ImportError):
        importlib.import_module("polars")
