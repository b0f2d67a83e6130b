"""How much memory a stage needs at its peak, from shapes, before it starts.

A stage is a sequence of phases, and a phase a list of arrays that are there together; the peak is
the phase with the largest sum. On a CPU the C library's allocator adds to it: blocks that are less
than 32 MiB it cuts from a heap, in which holes are left. Between phases the stages have it give
back what is free (:func:`~cfmvc.heap.give_back`), so that phases do not add up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from cfmvc.heap import give_back
from cfmvc.training.callbacks import Callback
from cfmvc.training.memory_meter import GIB, MemoryNow, memory_now

NUMBER = 4  # bytes of a float32, and of a column number in a CSR matrix
_MIB = 1024**2
_SMALL_BLOCK = 32 * _MIB  # glibc's DEFAULT_MMAP_THRESHOLD_MAX on 64 bits; larger ones are mapped
# The two numbers here that are measured and not counted: `python -m benchmarks.memory` holds them
# against processes. Holes are a share of the heap. Code is the pages of torch and MKL that come
# into memory when a first step calls them; on a GPU it stands for cuBLAS' workspace
# (CUBLAS_WORKSPACE_CONFIG: 32 MiB on Hopper).
_HOLES = 0.2
_CODE_MIB = {"cpu": 20, "cuda": 32}


@dataclass(frozen=True)
class Arrays:
    """Arrays of one size that are there at the same time.

    Parameters
    ----------
    what
        Name of the part that they belong to.
    n_bytes
        Of each.
    n
        How many.
    """

    what: str
    n_bytes: float
    n: float = 1.0


@dataclass(frozen=True)
class Phase:
    """All that is there together at one moment of a stage."""

    name: str
    arrays: Sequence[Arrays]

    def in_heap(self) -> float:
        """Return the bytes in blocks that are cut from the heap.

        Blocks of exactly the limit are among them: they are mapped, unless the heap has a hole that
        takes one, which differs from one process to the next with the order of all small blocks.
        """
        return sum(a.n * a.n_bytes for a in self.arrays if a.n_bytes <= _SMALL_BLOCK)

    def parts(self) -> dict[str, float]:
        """Return the bytes of each part."""
        summed: dict[str, float] = {}
        for array in self.arrays:
            summed[array.what] = summed.get(array.what, 0.0) + array.n * array.n_bytes
        return summed


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak of a stage.

    Parameters
    ----------
    stage
        Its name.
    phase
        When the peak is.
    parts
        Bytes of each part at that moment.
    present
        Bytes of them that are there before the stage begins: its data, a trained model.
    advice
        What to change where it is too much.
    """

    stage: str
    phase: str
    parts: dict[str, float]
    present: float = 0.0
    advice: str = ""

    @property
    def total(self) -> float:
        """Bytes at the peak, above a process that has loaded its libraries."""
        return sum(self.parts.values())

    def table(self) -> str:
        """Return the parts as lines, the largest first."""
        rows = sorted(self.parts.items(), key=lambda part: -part[1])
        rows.append(("total", self.total))
        lines = [f"{name:<34}{n_bytes / _MIB:>10.1f} MiB" for name, n_bytes in rows]
        return "\n".join([f"{self.stage}, peak while {self.phase}", *lines])


def peak_of(
    stage: str,
    phases: Iterable[Phase],
    device: torch.device,
    present: float = 0.0,
    advice: str = "",
) -> MemoryEstimate:
    """Return the largest of a stage's phases."""
    lasting = {"code of the libraries": float(_CODE_MIB.get(device.type, 0) * _MIB)}
    found = [MemoryEstimate(stage, "nothing", lasting, present, advice)]
    for phase in phases:
        holes = {"holes in the heap": _HOLES * phase.in_heap()} if device.type == "cpu" else {}
        parts = {name: n for name, n in (phase.parts() | lasting | holes).items() if n}
        found.append(MemoryEstimate(stage, phase.name, parts, present, advice))
    return max(found, key=lambda estimate: estimate.total)


@dataclass(frozen=True)
class ExpectedMemory:
    """An estimate, and the machine that it is made on.

    Parameters
    ----------
    estimate
        Of the stage.
    now
        Of the process, or of the GPU, before the stage.
    """

    estimate: MemoryEstimate
    now: MemoryNow

    @property
    def more(self) -> float:
        """Bytes that the stage asks for beyond what is there."""
        return max(self.estimate.total - self.estimate.present, 0.0)

    @property
    def peak_gib(self) -> float:
        """Expected peak of the process (or the GPU), comparable to what is measured afterwards."""
        return max(self.now.used + self.more, self.now.peak) / GIB

    @property
    def is_too_much(self) -> bool:
        """Whether the machine does not have it, as far as is known."""
        return self.now.available is not None and self.more > self.now.available

    def line(self) -> str:
        """Return one line for people."""
        text = (
            f"{self.estimate.stage}: about {self.peak_gib:.2g} GiB of memory expected, "
            f"{self.more / GIB:.2g} more than now"
        )
        if not self.is_too_much or self.now.available is None:
            return text
        left = f"only {self.now.available / GIB:.2g} GiB are available"
        return f"{text} while {self.estimate.phase}; warning: {left}: {self.estimate.advice}"


def announce(
    estimate: MemoryEstimate, device: torch.device, callbacks: Iterable[Callback]
) -> ExpectedMemory:
    """Tell those who watch a stage how much memory is expected, before it trains."""
    give_back()
    expected = ExpectedMemory(estimate, memory_now(device))
    for callback in callbacks:
        callback.on_memory(expected)
    return expected
