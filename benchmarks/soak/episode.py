"""One training under faults, and the same training undisturbed, with which it must agree."""

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.soak.cells import Base
from benchmarks.soak.doors import DOORS, Door
from benchmarks.soak.process import Ended, Place, Running

_ANYWHERE_SHARE = 0.2  # of the places are moments in the life of a process, and not steps
_LONGEST_DELAY = 0.05

Strike = Callable[[Running], bool]
Key = tuple[str, tuple[tuple[str, Any], ...], tuple[int, ...]]


@dataclass(frozen=True)
class Undisturbed:
    """What a training gives that nothing happens to.

    Parameters
    ----------
    ended
        How its last process ended.
    outputs
        What it made.
    seconds
        How long a process took, about.
    """

    ended: Ended
    outputs: dict[str, bytes]
    seconds: float


@dataclass
class Score:
    """What came of the faults of an episode.

    Parameters
    ----------
    n_injected
        Faults that struck.
    n_right_models
        Whether it ended with the right model.
    n_right_errors
        Faults that were answered with the error that says what to do.
    n_steps
        Optimiser steps of the training.
    wrong, skipped
        What was wrong, or could not be tried here, in words.
    """

    n_injected: int = 0
    n_right_models: int = 0
    n_right_errors: int = 0
    n_steps: int = 0
    wrong: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class Wrong(Exception):  # noqa: N818 - it ends an episode
    """Neither the right model nor the right error."""


class Episode:
    """A training that faults will strike.

    Parameters
    ----------
    base
        Cells and plan.
    door
        ``fit`` or ``stages``.
    folder
        A new folder to train in.
    rng
        Decides where faults strike.
    undisturbed
        Finds the undisturbed training of a door, changed parameters, and spoilt cells.
    changed, spoilt
        See :meth:`~benchmarks.soak.cells.Base.copy`.
    """

    def __init__(
        self,
        base: Base,
        door: str,
        folder: Path,
        rng: random.Random,
        undisturbed: Callable[[str, dict[str, Any], list[int]], Undisturbed],
        changed: dict[str, Any] | None = None,
        spoilt: list[int] | None = None,
    ) -> None:
        self.base, self.rng, self.folder = base, rng, folder
        self.changed, self.spoilt = changed or {}, spoilt or []
        self.expected = undisturbed(door, self.changed, self.spoilt)
        base.copy(folder, self.changed, self.spoilt)
        self.door: Door = DOORS[door](folder)
        self.steps = base.n_steps(door)
        self.score = Score()

    def place(self) -> Place:
        """Draw where the next fault strikes."""
        if self.rng.random() < _ANYWHERE_SHARE:
            return Place(None, self.rng.uniform(0.0, self.expected.seconds), 0.0)
        return self.place_in(self.rng.choice(list(self.steps)))

    def place_in(self, stage: str) -> Place:
        """Draw where in a stage the next fault strikes."""
        delay = self.rng.uniform(0.0, _LONGEST_DELAY)
        return Place(stage, self.rng.randrange(self.steps[stage]), delay)

    def go(self, strike: Strike | None = None) -> tuple[Ended, bool]:
        """Train until all is done, or a process ends otherwise.

        Parameters
        ----------
        strike
            Called with each process, until it has struck one.

        Returns
        -------
        ended : Ended
            How the last process ended.
        has_struck : bool
            Whether the fault came before the training was done.
        """
        ended, has_struck = Ended(0, ""), False
        while command := self.door.next_command():
            process = Running(command, self.folder, self.door.checkpoints)
            if strike is not None and not has_struck:
                has_struck = strike(process)
            ended = process.end()
            if ended.code:
                break
            self.door.note_success()
        return ended, has_struck

    def struck(
        self, act: Callable[[Running], Any], place: Place | None = None, is_counted: bool = True
    ) -> Ended:
        """Train until a fault has struck at a place; see :meth:`go`."""
        place = place or self.place()

        def strike(process: Running) -> bool:
            if not process.reaches(place):
                return False
            act(process)
            return True

        ended, has_struck = self.go(strike)
        self.score.n_injected += has_struck and is_counted
        return ended

    def kill(self, place: Place | None = None, is_counted: bool = False) -> Ended:
        """Train until SIGKILL at a place; a training that ends before it does so as expected."""
        ended = self.struck(lambda process: process.send(signal.SIGKILL), place, is_counted)
        is_over = ended.code in (0, -signal.SIGKILL, self.expected.ended.code)
        self.expect(is_over, "ended before it was killed", ended)
        return ended

    def expect(self, is_right: bool, what: str, ended: Ended) -> None:
        """End the episode as wrong unless something is as it should be."""
        if not is_right:
            raise Wrong(f"{what}; exit code {ended.code}: {ended.output[-1500:]}")

    def right_error(self, is_right: bool, what: str, ended: Ended) -> None:
        """Count a right error, or end the episode as wrong."""
        self.expect(is_right, f"not the error expected ({what})", ended)
        self.score.n_right_errors += 1

    def finish(self) -> Ended:
        """Train to the end without further faults, and compare."""
        ended, _ = self.go()
        self.expect(ended.code == 0, "did not go on", ended)
        self.compare(ended)
        return ended

    def compare(self, ended: Ended) -> None:
        """Count a right model, or end the episode as wrong."""
        found, expected = self.door.outputs(), self.expected.outputs
        differing = sorted(n for n in found | expected if found.get(n) != expected.get(n))
        self.expect(not differing, f"other bytes than undisturbed: {differing}", ended)
        self.score.n_right_models += 1
        self.score.n_steps += sum(self.steps.values())
