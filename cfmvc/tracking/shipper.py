"""The thread that sends a stage's spool while the stage works; nobody waits for it."""

import importlib
import threading
from contextlib import suppress
from pathlib import Path

from cfmvc.errors import NotYetError, TrackingError
from cfmvc.tracking.access import denial
from cfmvc.tracking.leftovers import leftovers, send_leftover
from cfmvc.tracking.shipment import Shipment
from cfmvc.tracking.spool import Spool
from cfmvc.tracking.store import Store, first_line
from cfmvc.tracking.sweep import sweep

_POLL_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_FIRST_ANSWER_SECONDS = 2.0  # what a store that has never said a word is waited for at the end


class Shipper:
    """Sends one spool in the background, and after that what dead processes have left.

    Parameters
    ----------
    spool
        The spool of this process.
    workspace
        The project's folder.
    """

    def __init__(self, spool: Spool, workspace: Path) -> None:
        self._spool = spool
        self._workspace = workspace
        self._changed = threading.Condition()
        self._is_closing = False
        self._is_done = False
        self._has_answered = False
        self._failure: Exception | None = None
        self._run_id: str | None = None
        self._thread = threading.Thread(target=self._work, name="cfmvc-shipper", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        _import_polars()
        self._thread.start()

    def wait_for_run(self, seconds: float) -> str:
        """Return the id of the MLflow run, once it exists.

        Raises
        ------
        TrackingError
            If the store does not take the run in time, or lets nobody in.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._run_id is not None or self._is_denied(), seconds)
            if self._run_id is not None:
                return self._run_id
            reason = "no answer in time" if self._failure is None else first_line(self._failure)
        raise TrackingError(f"the tracking store did not take the run: {reason}")

    def close(self, seconds: float) -> Exception | None:
        """Send the rest, and return why it could not be sent; None if all is sent.

        Waits ``seconds`` at most; two seconds for a store that has never answered, and not at all
        for one that has failed to.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._has_answered or self._is_settled(),
                min(seconds, _FIRST_ANSWER_SECONDS),
            )
            if self._has_answered:
                self._changed.wait_for(self._is_settled, seconds)
            if self._is_done:
                return None
            return self._failure or TimeoutError(
                f"not done in {seconds:g} s" if self._has_answered else "no answer yet"
            )

    def _is_denied(self) -> bool:
        return self._failure is not None and denial(self._failure) is not None

    def _is_settled(self) -> bool:
        return self._is_done or self._failure is not None

    def _work(self) -> None:
        pause = 1.0
        while not self._is_done:
            try:
                self._send()
                pause = 1.0
            except NotYetError:  # no failure: another thread or process is about to send it
                self._sleep(_POLL_SECONDS)
            except Exception as error:  # whatever it was, the records are on disk
                self._report(failure=error)
                if self._is_closing:
                    return
                self._sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _send(self) -> None:
        store = Store.connect(self._spool.header.uri, self._workspace, self._note_answer)
        with self._spool.lock.acquire():
            if not self._spool.is_there():  # `cfmvc sync` was quicker
                self._report(is_done=True)
                return
            shipment = Shipment(self._spool, store)
            is_first = True
            while True:
                has_ended = shipment.send()
                self._report(run_id=shipment.run_id)
                if has_ended:
                    break
                if is_first:
                    self._tidy(store)
                    is_first = False
                self._sleep(_POLL_SECONDS)
            self._spool.remove()
        self._report(is_done=True)

    def _tidy(self, store: Store) -> None:
        """Send what dead processes have left for this store; a failure there is not this run's."""
        with suppress(Exception):
            for spool in leftovers(store.home):
                if self._is_closing:
                    return
                if spool.header.uri == store.uri:
                    send_leftover(spool, store)
            sweep(store)

    def _note_answer(self) -> None:
        with self._changed:
            self._has_answered = True
            self._changed.notify_all()

    def _report(
        self,
        run_id: str | None = None,
        failure: Exception | None = None,
        is_done: bool = False,
    ) -> None:
        with self._changed:
            self._run_id = run_id or self._run_id
            self._failure = failure
            self._is_done = is_done
            self._changed.notify_all()

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            if not self._is_closing:
                self._changed.wait_for(lambda: self._is_closing, seconds)


def _import_polars() -> None:
    """Import polars, where it is installed, before the thread would do so with MLflow.

    scikit-learn looks for it among the modules that are loaded, and one that another thread is only
    half done with breaks it.
    """
    with suppress(ImportError):
        importlib.import_module("polars")
