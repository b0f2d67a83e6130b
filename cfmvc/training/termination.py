"""SIGTERM, heard at once and obeyed between two steps, when there is something whole to save."""

import signal
import threading
from types import FrameType
from typing import Any, Self

from cfmvc.errors import Preempted
from cfmvc.shards import current_shard


class Termination:
    """Listens to SIGTERM inside its block, where this is the thread that hears signals.

    With several processes the first one decides; the others wait for it to end.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is None:
            return
        signal.signal(signal.SIGTERM, self._before)
        if self.is_asked and exception[0] is None:  # it came too late for a step to obey it
            signal.raise_signal(signal.SIGTERM)

    def obey(self, what: str) -> None:
        """End the training if that was asked for.

        Raises
        ------
        Preempted
            Saying what was stopped where.
        """
        if self.is_asked:
            raise Preempted(what)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = current_shard().is_first
