"""Data larger than memory: the real stages on 50,000 to 1,000,000 cells, a few epochs each.

One of the VAE. Of the flow as many as one pairing of cells serves: the first of them pays for it.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.big_file import N_GENES, write_big_file
from benchmarks.engine.rounds import ratios, spread
from benchmarks.engine.row import Bar, Row, Spread
from benchmarks.engine.setting import Setting

SIZES = (50_000, 200_000, 1_000_000)
STAGES = ("prepare", "train_vae", "train_flow")
# Trained once more, in turn: minutes lie between two sizes, and machines are noisy. The VAE of the
# largest takes too long for that.
AGAIN = 2 * [(SIZES[0], STAGES[1:]), (SIZES[-1], STAGES[2:])]
_GIB = 2**30
_ROOT = Path(__file__).resolve().parent.parent.parent
_TORCH = (
    "import torch\nlines = open('/proc/self/status').read().splitlines()\n"
    "print(next(int(line.split()[1]) for line in lines if line.startswith('VmHWM:')) * 1024)"
)
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Run:
    """One stage on one data set.

    Parameters
    ----------
    seconds
        The whole process.
    peak_gib
        Largest resident memory of the process, without what it has after importing torch.
    cells_per_second
        In the epochs of a training; 0 where none is.
    """

    seconds: float
    peak_gib: float
    cells_per_second: float


def run(setting: Setting) -> list[Row]:
    """Measure memory and throughput; of the smallest and the largest size several times."""
    base = int(_output([sys.executable, "-c", _TORCH]))
    measured: dict[int, dict[str, list[Run]]] = {}
    with tempfile.TemporaryDirectory() as name:
        for n_cells, stages in [*((size, STAGES) for size in SIZES), *AGAIN]:
            workspace = Path(name) / str(n_cells)
            if n_cells not in measured:
                measured[n_cells] = {stage: [] for stage in STAGES}
                _prepare(workspace, n_cells)
            for stage in stages:
                measured[n_cells][stage].append(_stage(workspace, stage, base))
    runs = {size: {s: _together(of[s]) for s in STAGES} for size, of in measured.items()}
    return [_memory_row(runs, base), *(_throughput_row(measured, s) for s in STAGES[1:])]


def _together(repeats: list[Run]) -> Run:
    """Return the median seconds and rate, and the largest peak."""
    return Run(
        median(run.seconds for run in repeats),
        max(run.peak_gib for run in repeats),
        median(run.cells_per_second for run in repeats),
    )


def _memory_row(runs: dict[int, dict[str, Run]], base: int) -> Row:
    largest = runs[SIZES[-1]]
    peak = max(run.peak_gib for run in largest.values())
    notes = [
        f"{n_cells:,} cells: "
        + "; ".join(
            f"{stage} {run.peak_gib:.2f} GiB, {run.seconds:.0f} s" for stage, run in of.items()
        )
        for n_cells, of in runs.items()
    ]
    return Row(
        f"peak memory of any stage, {SIZES[-1]:,} cells x {N_GENES:,} genes, 10 % non-zero",
        Spread(peak, peak, peak),
        unit="GiB",
        bar=Bar(3.0, "at_most", "ours", " GiB"),
        notes=[
            f"resident memory of the process above the {base / _GIB:.2f} GiB that it has after "
            "`import torch`; the pipeline's own stages: one epoch of the VAE, and of the flow the "
            "epochs that share one coupling, the rest as shipped",
            "counts stay on disk at every size (compute.max_counts_gib=0)",
            *notes,
        ],
    )


def _throughput_row(measured: dict[int, dict[str, list[Run]]], stage: str) -> Row:
    rates = {
        n_cells: [run.cells_per_second for run in of[stage]] for n_cells, of in measured.items()
    }
    small, large = (rates[size] for size in (SIZES[0], SIZES[-1]))
    return Row(
        f"{stage}: cells a second, {SIZES[-1]:,} against {SIZES[0]:,} cells",
        spread(large),
        spread(small),
        "cells/s",
        f"{SIZES[0]:,} cells",
        # Each of the large ones against the small one that was measured last before it.
        ratios(large, small[: len(large)]),
        Bar(0.9, "at_least"),
        notes=[
            f"{n_cells:,} cells: " + ", ".join(f"{rate:,.0f}" for rate in of) + " a second"
            for n_cells, of in rates.items()
        ],
    )


def _prepare(workspace: Path, n_cells: int) -> None:
    data = workspace / "data" / "raw" / "big.h5ad"
    data.parent.mkdir(parents=True)
    write_big_file(data, n_cells)
    (workspace / "params.yaml").write_text(yaml.safe_dump(_params(workspace, data)))


def _params(workspace: Path, data: Path) -> dict[str, Any]:
    params = yaml.safe_load((_ROOT / "params.yaml").read_text())
    params["data"]["path"] = str(data.relative_to(workspace))
    params["compute"]["max_counts_gib"] = 0
    for section, n_epochs in (("vae", 1), ("flow", params["flow"]["recouple_every"])):
        params[section] |= {"n_epochs": n_epochs, "validate_every": n_epochs}
    return dict(params)


def _stage(workspace: Path, stage: str, base: int) -> Run:
    environment = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "MLFLOW_TRACKING_URI": f"sqlite:///{workspace}/mlflow.db",
    }
    started = time.perf_counter()
    with (workspace / f"{stage}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"pipelines.{stage}"],
            cwd=workspace,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, peak_of(process.pid))
            time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{stage}: {(workspace / f'{stage}.log').read_text()[-2000:]}")
    rate = _cells_per_second(workspace, stage)
    return Run(seconds, (peak - base) / _GIB, rate)


def peak_of(pid: int) -> int:
    """Return the peak of a process's resident memory so far, in bytes; 0 if it has ended.

    What a parent learns of its child when it waits for it begins with the parent's own size, which
    is gigabytes after other rows.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _cells_per_second(workspace: Path, stage: str) -> float:
    with sqlite3.connect(workspace / "mlflow.db") as store:
        found = store.execute(
            "select value from metrics join runs using (run_uuid) "
            "where runs.name = ? and key = 'cells_per_second' "
            "and runs.start_time = (select max(start_time) from runs where name = ?)",
            (stage, stage),
        ).fetchall()
    seconds_a_cell = [1 / rate for (rate,) in found]
    return len(found) / sum(seconds_a_cell) if found else 0.0


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
