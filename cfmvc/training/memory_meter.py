"""Memory of the process and of the GPU: now, at its peak, and what is left of the machine's."""

import os
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

GIB = 1024**3
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage: bytes on macOS, KiB on Linux
# A container, by cgroups version 2, then 1: folder, files of limit and use, and what of that use
# the kernel gives back at once (files that were read).
_CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


@dataclass(frozen=True)
class MemoryNow:
    """Bytes of the process (RSS), or on CUDA of the GPU's allocator.

    Parameters
    ----------
    used, peak
        Now, and at most so far.
    available
        What could be had in addition; None where it is not known.
    """

    used: float
    peak: float
    available: float | None


def memory_now(device: torch.device) -> MemoryNow:
    """Return what is used and what is left, where a training on ``device`` needs it."""
    if device.type == "cuda":
        used = torch.cuda.memory_allocated(device)
        unused = torch.cuda.memory_reserved(device) - used
        free = torch.cuda.mem_get_info(device)[0] + unused
        return MemoryNow(used, torch.cuda.max_memory_allocated(device), free)
    peak = _peak_rss()
    return MemoryNow(_of_status("VmRSS") or peak, peak, _available())


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return peaks in GiB: RSS of the process, and on CUDA what was allocated and reserved."""
    peaks = {"peak_rss_gib": _peak_rss() / GIB}
    if device.type == "cuda":
        stats = torch.cuda.memory_stats(device)  # takes as long as a step
        for name in ("allocated", "reserved"):
            peaks[f"peak_gpu_{name}_gib"] = stats.get(f"{name}_bytes.all.peak", 0) / GIB
    return peaks


def _peak_rss() -> float:
    """Return the largest RSS so far, in bytes.

    ``ru_maxrss`` of a process on Linux starts with the size of the one that started it.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
    return _of_status("VmHWM") or float(usage)


def _of_status(name: str) -> float | None:
    """Return a line of ``/proc/self/status`` in bytes; None where there is none (macOS)."""
    return _in_kib("/proc/self/status", name)


def _available() -> float | None:
    """Return what the machine, or the container's limit, has left; None where it does not say."""
    found = [_in_kib("/proc/meminfo", "MemAvailable")]
    found += [left_in_container(Path(folder), *names) for folder, *names in _CGROUPS]
    known = [value for value in found if value is not None]
    if not known and hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        known = [float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))]
    return min(known, default=None)


def left_in_container(folder: Path, limit: str, usage: str, cache: str) -> float | None:
    """Return what a container has left, in bytes; None where there is none, or it has no limit."""
    try:
        left = float((folder / limit).read_text()) - float((folder / usage).read_text())
    except (OSError, ValueError):
        return None
    with suppress(OSError, ValueError):
        stat = dict(line.split()[:2] for line in (folder / "memory.stat").read_text().splitlines())
        left += float(stat.get(cache, 0))
    return left


def _in_kib(file: str, name: str) -> float | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    values = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return next((float(value) * 1024 for value in values), None)
