"""Where our side's time goes: in the operators of torch, in a GPU's kernels, in imports."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_N_SHOWN = 14
_WIDEST = 72  # of a kernel's name, which may have hundreds of letters


def profile_of(
    work: Callable[[], Any], n_units: int, unit: str = "step", device: str = "cpu"
) -> str:
    """Run ``work`` under torch's profiler and return its operators, or kernels, by their own time.

    Parameters
    ----------
    work
        What is profiled; to its end on the device.
    n_units
        Number of units (steps, calls) in it.
    unit
        Their name.
    device
        ``cpu``: operators by self CPU time; ``cuda``: kernels by the time of the device.
    """
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    started = time.perf_counter()
    work()
    plain = time.perf_counter() - started
    with profile(activities=activities) as seen:
        work()

    def own_seconds(event: Any) -> float:
        return (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6

    averages = sorted(seen.key_averages(), key=own_seconds, reverse=True)
    total = sum(own_seconds(event) for event in averages)
    where = "kernels" if on_gpu else f"{torch.get_num_threads()} thread(s); operators"
    lines = [
        f"{plain / n_units * 1e3:.2f} ms a {unit} without the profiler; under it, {where} take "
        f"{total / n_units * 1e3:.2f} ms a {unit}",
        f"{'self ms a ' + unit:>18} {'share':>6} {'calls a ' + unit:>16}  "
        f"{'kernel' if on_gpu else 'operator'}",
    ]
    for event in averages[:_N_SHOWN]:
        own = own_seconds(event)
        lines.append(
            f"{own / n_units * 1e3:>18.3f} {own / max(total, 1e-12):>6.1%} "
            f"{event.count / n_units:>16.1f}  {event.key[:_WIDEST]}"
        )
    return "\n".join(lines)


def imports_of(arguments: Sequence[str]) -> str:
    """Run Python with ``arguments`` once and return what it imports, by package and own time."""
    command = [sys.executable, "-X", "importtime", *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    whole = time.perf_counter() - started
    seconds: Counter[str] = Counter()
    for line in done.stderr.splitlines():
        head, _, rest = line.partition("import time:")
        own, *_, name = (part.strip() for part in rest.split("|")) if rest else ("", "")
        if not head and own.isdigit():
            seconds[name.partition(".")[0]] += int(own) / 1e6
    total = sum(seconds.values())
    lines = [
        f"{whole:.2f} s with the clock of imports, which slows them; imports take {total:.2f} s",
        f"{'own s':>8} {'share':>6}  package",
    ]
    lines += [
        f"{own:>8.3f} {own / total:>6.1%}  {name}" for name, own in seconds.most_common(_N_SHOWN)
    ]
    return "\n".join(lines)
