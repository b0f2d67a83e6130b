"""How far the sending of one spool has come: said by who sends it, waited for by its stage."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cfmvc.errors import TrackingError

_FIRST_ANSWER_SECONDS = 2.0  # what a store that has never said a word is waited for at the end


@dataclass(frozen=True)
class Standing:
    """What is known of a sending.

    Parameters
    ----------
    has_begun
        Whether the sender is at work at all.
    has_answered
        Whether the store has said a word.
    run_id
        The MLflow run, once it exists.
    failure
        Why the last try was in vain, in one line.
    is_denied
        Whether that was the store letting nobody in.
    is_done
        Whether all is sent.
    """

    has_begun: bool = False
    has_answered: bool = False
    run_id: str | None = None
    failure: str | None = None
    is_denied: bool = False
    is_done: bool = False

    @property
    def is_settled(self) -> bool:
        """Return whether nothing more is to be waited for."""
        return self.is_done or self.failure is not None


class Delivery:
    """The sending of one spool, as several threads see it.

    Parameters
    ----------
    on_report
        Is told each time something is reported.
    """

    def __init__(self, on_report: Callable[[Standing], None] = lambda standing: None) -> None:
        self._changed = threading.Condition()
        self._standing = Standing()
        self._is_closing = False
        self._on_report = on_report

    @property
    def is_closing(self) -> bool:
        """Whether the stage is over, and waits for the rest to be sent."""
        return self._is_closing

    def report(self, **changes: Any) -> None:
        """Say what has changed, by the names of :class:`Standing`."""
        with self._changed:
            self._standing = replace(self._standing, **changes)
            self._on_report(self._standing)
            self._changed.notify_all()

    def begin_closing(self) -> None:
        """Let nobody sleep any more."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def sleep(self, seconds: float) -> None:
        """Wait, until the stage is over at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing, seconds)

    def wait_for_run(self, seconds: float) -> str:
        """Return the id of the MLflow run, once it exists.

        Raises
        ------
        TrackingError
            If the store does not take the run in time, or lets nobody in.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._standing.run_id is not None or self._standing.is_denied, seconds
            )
            if self._standing.run_id is not None:
                return self._standing.run_id
            reason = self._standing.failure or "no answer in time"
        raise TrackingError(f"the tracking store did not take the run: {reason}")

    def wait_for_rest(self, seconds: float) -> str | None:
        """Return why the rest could not be sent; None if all is sent.

        Waits ``seconds`` at most; two seconds for a store that has never answered, and not at all
        for one that has failed to.
        """
        with self._changed:
            self._wait(lambda: self._standing.has_begun, seconds)
            self._wait(lambda: self._standing.has_answered, min(seconds, _FIRST_ANSWER_SECONDS))
            has_answered = self._standing.has_answered
            if has_answered:
                self._wait(lambda: False, seconds)
            if self._standing.is_done:
                return None
            late = f"not done in {seconds:g} s" if has_answered else "no answer yet"
            return self._standing.failure or late

    def _wait(self, is_so: Callable[[], bool], seconds: float) -> None:
        self._changed.wait_for(lambda: is_so() or self._standing.is_settled, seconds)
