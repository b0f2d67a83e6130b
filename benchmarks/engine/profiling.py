"""Where our side's time goes, in the operators of torch."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_N_SHOWN = 14


def profile_of(work: Callable[[], Any], n_units: int, unit: str = "step") -> str:
    """Run ``work`` under torch's profiler and return its operators by self CPU time.

    Parameters
    ----------
    work
        What is profiled.
    n_units
        Number of units (steps, calls) in it.
    unit
        Their name.
    """
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    started = time.perf_counter()
    work()
    plain = time.perf_counter() - started
    with profile(activities=activities) as seen:
        work()
    averages = sorted(seen.key_averages(), key=lambda e: e.self_cpu_time_total, reverse=True)
    total = sum(event.self_cpu_time_total for event in averages) / 1e6
    lines = [
        f"{plain / n_units * 1e3:.2f} ms a {unit} without the profiler, {torch.get_num_threads()} "
        f"thread(s); under it the operators take {total / n_units * 1e3:.2f} ms a {unit}",
        f"{'self ms a ' + unit:>18} {'share':>6} {'calls a ' + unit:>16}  operator",
    ]
    for event in averages[:_N_SHOWN]:
        own = event.self_cpu_time_total / 1e6
        lines.append(
            f"{own / n_units * 1e3:>18.3f} {own / total:>6.1%} {event.count / n_units:>16.1f}  "
            f"{event.key}"
        )
    return "\n".join(lines)
