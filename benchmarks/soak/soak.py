"""Episodes one after the other until the steps are done, every kind of fault equally often."""

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.soak import bad_values, faults
from benchmarks.soak.cells import Base, Plan
from benchmarks.soak.doors import DOORS
from benchmarks.soak.episode import Episode, Key, Score, Undisturbed, Wrong
from benchmarks.soak.process import Ended, Running

_ROLLBACK = {"vae.nan_policy": "rollback", "flow.nan_policy": "rollback"}


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Parameters
    ----------
    work
        Makes it, and judges what comes of it.
    doors
        Through which a training can meet it.
    changed
        Parameters that belong to it.
    n_spoilt
        Of how many training cells a count becomes NaN; None: of all.
    """

    work: Callable[[Episode], None]
    doors: tuple[str, ...] = tuple(DOORS)
    changed: dict[str, Any] = field(default_factory=dict)
    n_spoilt: int | None = 0


KINDS = {
    "SIGKILL": Kind(faults.kill),
    "SIGTERM": Kind(faults.terminate),
    "truncated checkpoint": Kind(faults.truncate),
    "full disk": Kind(faults.full_disk),
    "read-only folder": Kind(faults.read_only),
    # The door of `cfmvc fit` refuses such cells; these are spoilt behind the one of `prepare`.
    "NaN in a few cells": Kind(bad_values.nan_cells, ("stages",), n_spoilt=2),
    "NaN in all cells": Kind(bad_values.nan_everywhere, ("stages",), n_spoilt=None),
    "exploding rate": Kind(bad_values.exploding_rate, changed={"vae.lr": bad_values.EXPLODING}),
    "exploding rate for a while": Kind(bad_values.exploding_for_a_while),
}


class Soak:
    """All episodes of a seed.

    Parameters
    ----------
    folder
        A folder for everything; what was wrong stays in it.
    plan
        Of each training.
    seed
        Decides kinds, doors and places.
    kinds
        Names of the kinds of fault.
    doors
        Of those through which a kind can come, the ones to take.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        seed: int,
        kinds: list[str],
        doors: tuple[str, ...] = tuple(DOORS),
    ) -> None:
        self.folder, self.kinds, self.doors = folder, kinds, doors
        self.rng = random.Random(seed)
        self.base = Base(folder / "base", plan)
        self.scores = {kind: Score() for kind in kinds}
        self._undisturbed = dict[Key, Undisturbed]()

    @property
    def n_steps(self) -> int:
        """Optimiser steps of all trainings under faults so far."""
        return sum(score.n_steps for score in self.scores.values())

    def run(self, n_steps: int, tell: Callable[[str], None]) -> dict[str, Score]:
        """Go on until so many steps are done; a round has every kind once, in random order."""
        number = 0
        while self.n_steps < n_steps:
            before = self.n_steps
            for kind in self.rng.sample(self.kinds, len(self.kinds)):
                number += 1
                started = time.monotonic()
                told = self._episode(kind, number)
                seconds = time.monotonic() - started
                tell(f"{number}: {kind}, {told}; {seconds:.0f} s, {self.n_steps} steps so far")
                if self.n_steps >= n_steps:
                    break
            if self.n_steps == before:  # wrong every time: more of it tells nothing new
                break
        return self.scores

    def _episode(self, name: str, number: int) -> str:
        kind, score, rng = KINDS[name], self.scores[name], random.Random(self.rng.random())
        door = rng.choice([name for name in kind.doors if name in self.doors])
        changed = kind.changed | rng.choice([{}, _ROLLBACK] if kind.n_spoilt == 0 else [{}])
        n_cells = self.base.n_training_cells()
        spoilt = rng.sample(range(n_cells), n_cells if kind.n_spoilt is None else kind.n_spoilt)
        folder = self.folder / f"episode-{number}"
        episode = Episode(
            self.base, door, folder, rng, self._find_undisturbed, changed, sorted(spoilt)
        )
        told = f"{door}{', rollback' if _ROLLBACK.items() <= changed.items() else ''}"
        try:
            kind.work(episode)
        except Wrong as wrong:
            episode.score.wrong.append(f"{name}, {told}, {folder}: {wrong}")
        _add(score, episode.score)
        if not episode.score.wrong:
            shutil.rmtree(folder)
        return told + (", WRONG" if episode.score.wrong else "")

    def _find_undisturbed(
        self, door: str, changed: dict[str, Any], spoilt: list[int]
    ) -> Undisturbed:
        """Train undisturbed, once for each kind of training."""
        key: Key = (door, tuple(sorted(changed.items())), tuple(spoilt))
        if key not in self._undisturbed:
            folder = self.folder / f"undisturbed-{len(self._undisturbed)}"
            self.base.copy(folder, changed, spoilt)
            opened = DOORS[door](folder)
            ended, seconds = Ended(0, ""), [0.0]
            while ended.code == 0 and (command := opened.next_command()):
                started = time.monotonic()
                ended = Running(command, folder, opened.checkpoints).end()
                seconds.append(time.monotonic() - started)
                if ended.code == 0:
                    opened.note_success()
            self._undisturbed[key] = Undisturbed(ended, opened.outputs(), max(seconds))
            shutil.rmtree(folder)
        return self._undisturbed[key]


def _add(total: Score, more: Score) -> None:
    for name, value in vars(more).items():
        setattr(total, name, getattr(total, name) + value)
