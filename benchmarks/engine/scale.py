"""Data larger than memory: the real stages on 50,000 to 1,000,000 cells, a few epochs each.

One of the VAE. Of the flow as many as one pairing of cells serves: the first of them pays for it.
Minutes lie between two trainings of so many cells, in which a machine may have become faster or
slower. So the smallest size is trained beside each larger one, again and again until that is done,
and what counts are the seconds in which both are in an epoch. Either has a core of its own: on two
for both, what begins and ends the short trainings may take from the long one alone.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from benchmarks.big_file import N_GENES, write_big_file
from benchmarks.engine.rounds import spread
from benchmarks.engine.row import Bar, Row, Spread
from benchmarks.engine.setting import Setting

SIZES = (50_000, 200_000, 1_000_000)
STAGES = ("prepare", "train_vae", "train_flow")
# How often a size is trained beside the smallest; the VAE of the largest takes too long for more.
N_TIMES = {(SIZES[-1], "train_flow"): 3}
_GIB = 2**30
_ROOT = Path(__file__).resolve().parent.parent.parent
_TORCH = (
    "import torch\nlines = open('/proc/self/status').read().splitlines()\n"
    "print(next(int(line.split()[1]) for line in lines if line.startswith('VmHWM:')) * 1024)"
)
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Epoch:
    """An epoch of a training: when, in seconds since 1970, and how fast."""

    began: float
    ended: float
    cells_per_second: float


@dataclass(frozen=True)
class Run:
    """One stage on one data set.

    Parameters
    ----------
    seconds
        The whole process.
    peak_gib
        Largest resident memory of the process, without what it has after importing torch.
    epochs
        Of a training.
    """

    seconds: float
    peak_gib: float
    epochs: list[Epoch]


@dataclass(frozen=True)
class Race:
    """A training, and those of the smallest size that were begun while it lasted."""

    ours: Run
    beside: list[Run]

    def rates(self) -> tuple[float, float]:
        """Return cells a second, ours and those of the smallest size.

        They are those of whole epochs, each pair of which counts as long as both last. An epoch
        ends here when its figures are written, after its validation.
        """
        shared, cells = 0.0, np.zeros(2)
        for mine, other in product(
            self.ours.epochs, (e for run in self.beside for e in run.epochs)
        ):
            seconds = min(mine.ended, other.ended) - max(mine.began, other.began)
            if seconds > 0:
                shared += seconds
                cells += seconds * np.asarray([mine.cells_per_second, other.cells_per_second])
        ours, small = cells / shared if shared else (np.nan, np.nan)
        return float(ours), float(small)

    @property
    def text(self) -> str:
        """For a note."""
        ours, small = self.rates()
        if np.isnan(ours):
            return "never in an epoch together"
        return f"{ours:,.0f} and {small:,.0f} ({ours / small:.2f}x)"


def run(setting: Setting) -> list[Row]:
    """Measure memory and throughput, of each size beside the smallest."""
    base = int(_output([sys.executable, "-c", _TORCH]))
    runs: dict[int, dict[str, list[Run]]] = {}
    races: dict[str, dict[int, list[Race]]] = {stage: {} for stage in STAGES[1:]}
    with tempfile.TemporaryDirectory() as name:
        spaces = {size: Path(name) / str(size) for size in SIZES}
        small = spaces[SIZES[0]]
        for size, space in spaces.items():
            _prepare(space, size)
            stages = STAGES if space == small else STAGES[:1]
            runs[size] = {stage: [_stage(space, stage, base)] for stage in stages}
            for stage in STAGES[len(stages) :]:
                n_times = N_TIMES.get((size, stage), 1)
                raced = [_beside(space, small, stage, base) for _ in range(n_times)]
                races[stage][size] = raced
                runs[size][stage] = [race.ours for race in raced]
    together = {size: {s: _together(of[s]) for s in STAGES} for size, of in runs.items()}
    return [_memory_row(together, base), *(_throughput_row(s, of) for s, of in races.items())]


def _together(repeats: list[Run]) -> Run:
    """Return one of them, with the median of the seconds and the largest peak of all."""
    return replace(
        repeats[0],
        seconds=median(run.seconds for run in repeats),
        peak_gib=max(run.peak_gib for run in repeats),
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


def _throughput_row(stage: str, races: dict[int, list[Race]]) -> Row:
    rates = [race.rates() for race in races[SIZES[-1]]]
    return Row(
        f"{stage}: cells a second, {SIZES[-1]:,} against {SIZES[0]:,} cells",
        spread([ours for ours, _ in rates]),
        spread([small for _, small in rates]),
        "cells/s",
        f"{SIZES[0]:,} cells",
        spread([ours / small for ours, small in rates]),
        Bar(0.9, "at_least"),
        notes=[
            f"two trainings at once, a core each: {SIZES[0]:,} cells again and again, as long as "
            "the larger number takes; the seconds in which both are in an epoch",
            *(
                f"{size:,} and {SIZES[0]:,} cells: " + "; ".join(race.text for race in of)
                for size, of in races.items()
            ),
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


def _beside(workspace: Path, small: Path, stage: str, base: int) -> Race:
    """Carry out a stage, and that of the smallest size beside it until it is done."""
    beside: list[Run] = []
    mine, other = two_cores()
    with ThreadPoolExecutor(1) as pool:
        ours = pool.submit(_stage, workspace, stage, base, mine)
        while not ours.done():
            beside.append(_stage(small, stage, base, other))
    return Race(ours.result(), beside)


def two_cores() -> tuple[int | None, int | None]:
    """Return two cores that may be used, or None twice where there are none to choose from."""
    if not hasattr(os, "sched_getaffinity"):  # not on macOS
        return None, None
    first, *others = sorted(os.sched_getaffinity(0))
    return (first, others[0]) if others else (None, None)


def _stage(workspace: Path, stage: str, base: int, core: int | None = None) -> Run:
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
        if core is not None:  # its threads and processes inherit it
            os.sched_setaffinity(process.pid, {core})
        peak = 0
        while process.poll() is None:
            peak = max(peak, peak_of(process.pid))
            time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{stage}: {(workspace / f'{stage}.log').read_text()[-2000:]}")
    return Run(seconds, (peak - base) / _GIB, _epochs(workspace, stage))


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


def _epochs(workspace: Path, stage: str) -> list[Epoch]:
    """Return the epochs of a stage's last run, as its metrics tell them."""
    with closing(sqlite3.connect(workspace / "mlflow.db")) as store:
        found = store.execute(
            "select step, key, value, timestamp / 1000.0 from metrics join runs using (run_uuid) "
            "where runs.name = ? and key in ('cells_per_second', 'step_seconds') "
            "and runs.start_time = (select max(start_time) from runs where name = ?) order by step",
            (stage, stage),
        ).fetchall()
    rates = {step: value for step, key, value, _ in found if key == "cells_per_second"}
    epochs, before = [], 0
    for step, key, value, at in found:
        if key == "step_seconds":
            epochs.append(Epoch(at - value * (step - before), at, rates[step]))
            before = step
    return epochs


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
