"""Signals to stop, heard at once and obeyed between two steps, with something whole to save."""

import signal
import threading
from types import FrameType
from typing import Any, Self

from cfmvc.errors import Preempted, StoppedEarly
from cfmvc.shards import current_shard

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Termination:
    """Listens to SIGTERM and Ctrl-C inside its block, where this is the thread that hears signals.

    With several processes the first one decides; the others wait for it to end. A second Ctrl-C
    waits for nothing.

    Parameters
    ----------
    is_kept
        Whether what was trained can be gone on from. Otherwise Ctrl-C is not listened to: nothing
        is gained by waiting for the end of a step.
    """

    def __init__(self, is_kept: bool) -> None:
        self._heard = [signal.SIGTERM, signal.SIGINT] if is_kept else [signal.SIGTERM]
        self._before = dict[signal.Signals, Any]()
        self._asked_by: signal.Signals | None = None

    @property
    def is_asked(self) -> bool:
        """Whether the training has to end."""
        return self._asked_by is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self._heard:
                before = signal.getsignal(number)
                if before not in (None, signal.SIG_IGN):  # as Ctrl-C in a script's background
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        # Too late for a step to obey it; a trial that was pruned meanwhile is not to be followed by
        # the next one. An error is told instead: it may be that nothing could be saved.
        error = exception[1]
        if self._asked_by is not None and (error is None or isinstance(error, StoppedEarly)):
            signal.raise_signal(self._asked_by)
        elif self._asked_by is not None and isinstance(error, Exception):
            error.asked_to_stop = self._asked_by  # type: ignore[attr-defined]

    def obey(self, stage: str, step: int, what_next: str) -> None:
        """End the training if that was asked for.

        Raises
        ------
        Preempted
            Saying what was stopped where, and how it goes on.
        """
        if self._asked_by is not None:
            by = _NAMES[self._asked_by]
            raise Preempted(
                f"{stage}: stopped by {by} after step {step}{what_next}", self._asked_by
            )

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if current_shard().is_first:
            self._asked_by = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(number, self._before[signal.SIGINT])


def asked_to_stop(error: BaseException | None) -> signal.Signals | None:
    """Return the signal that came with an error, or with what it was raised from; or None."""
    while error is not None:
        if (number := getattr(error, "asked_to_stop", None)) is not None:
            return signal.Signals(number)
        error = error.__cause__
    return None
