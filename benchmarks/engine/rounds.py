"""Paired rounds: every round times all sides in turn, so that what slows one slows the others."""

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from benchmarks.engine.row import Spread

THREADS = (1, 2)
_FAR_BEHIND = 1.5


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Let torch use ``n`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rounds(sides: Mapping[str, Callable[[], float]], n_rounds: int) -> dict[str, list[float]]:
    """Run all sides once a round, every other round in reverse; return what each returned."""
    seen: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(n_rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            gc.collect()
            seen[name].append(sides[name]())
    return seen


@dataclass
class Contest:
    """Each side with the numbers of threads that may be its best.

    Two threads may be many times slower than one where another process holds a core; a short try
    finds that out, and what was far behind is not measured again.

    Parameters
    ----------
    sides
        What is timed, in full; each returns its time.
    short
        The same work, a few steps of it.
    """

    sides: Mapping[str, Callable[[], float]]
    short: Mapping[str, Callable[[], float]]
    tried: dict[str, float] = field(default_factory=dict)
    seen: dict[str, list[float]] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)

    def run(self, n_rounds: int) -> None:
        """Try all, then measure what is left in paired rounds."""
        for name, side in self.short.items():
            for n in THREADS:
                self.tried[f"{name}@{n}"] = min(_on(n, side)() for _ in range(2))
        left = {
            f"{name}@{n}": _on(n, side)
            for name, side in self.sides.items()
            for n in THREADS
            if self.tried[f"{name}@{n}"]
            <= _FAR_BEHIND * min(self.tried[f"{name}@{m}"] for m in THREADS)
        }
        self.seen = rounds(left, n_rounds)
        self.threads = {name: best_threads(self.seen, name) for name in self.sides}

    def best(self, side: str) -> list[float]:
        """Return a side's rounds with its best number of threads."""
        return self.seen[f"{side}@{self.threads[side]}"]

    def note(self, scale: float, unit: str) -> str:
        """Return all that was measured, in words."""
        measured = [
            f"{name} {spread(values, scale).text(unit)}" for name, values in self.seen.items()
        ]
        dropped = [
            f"{name} {value * scale:.3g}{unit} in a short try, not measured further"
            for name, value in self.tried.items()
            if name not in self.seen
        ]
        best = ", ".join(f"{name} {n}" for name, n in self.threads.items())
        return f"best threads: {best}; side@threads: {'; '.join(measured + dropped)}"


def _on(n: int, side: Callable[[], float]) -> Callable[[], float]:
    def run() -> float:
        with threads(n):
            return side()

    return run


def best_threads(seen: Mapping[str, Sequence[float]], side: str) -> int:
    """Return the number of threads with which a side's median is smallest."""
    medians = {
        int(name.partition("@")[2]): statistics.median(values)
        for name, values in seen.items()
        if name.partition("@")[0] == side
    }
    return min(medians, key=lambda n: medians[n])


def spread(values: Sequence[float], scale: float = 1.0) -> Spread:
    """Return median, smallest and largest, each times ``scale``."""
    return Spread(statistics.median(values) * scale, min(values) * scale, max(values) * scale)


def ratios(other: Sequence[float], ours: Sequence[float]) -> Spread:
    """Return ``other / ours`` round by round: noise that both sides share cancels."""
    return spread([theirs / mine for theirs, mine in zip(other, ours, strict=True)])
