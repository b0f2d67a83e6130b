"""The whole course on a GPU: both stages of 50 epochs, generation, and the memory of all of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from benchmarks.engine.cells import (
    CELLS_PER_STEP,
    BenchCells,
    bench_cells,
    flow_config,
    section,
    vae_config,
)
from benchmarks.engine.inference import N_CELLS, N_STEPS, Asked, our_means
from benchmarks.engine.profiling import profile_of
from benchmarks.engine.rounds import spread
from benchmarks.engine.row import Bar, Row
from benchmarks.engine.setting import Setting
from cfmvc.models import Bundle
from cfmvc.stages import fit_flow, fit_vae
from cfmvc.stages.checkpointing import plain_engine
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.training.engine import Engine
from cfmvc.training.history import History

_EPOCHS = 50
_WARM_EPOCHS = 2
_GIB = 1024**3
STAGE_1, STAGE_2 = "GPU: stage 1, whole call", "GPU: stage 2, whole call"
INFERENCE, PEAK = "GPU: inference, means left on the device", "GPU: peak memory of all of it"
BARS = {
    STAGE_1: Bar(6.0, "at_most", "ours", " s"),
    STAGE_2: Bar(3.0, "at_most", "ours", " s"),
    INFERENCE: Bar(0.2, "at_most", "ours", " s"),
    PEAK: Bar(0.5, "at_most", "ours", " GiB"),
}


@dataclass
class Course:
    """What was measured: seconds of each part in each round, and of a step in the stages.

    Parameters
    ----------
    device
        Where.
    seconds
        By name of the row.
    step_seconds
        Of both stages, in each round.
    peaks
        Bytes of the device that were allocated and reserved; none on a CPU.
    """

    device: torch.device
    seconds: dict[str, list[float]] = field(default_factory=dict)
    step_seconds: dict[str, list[float]] = field(default_factory=dict)
    peaks: tuple[int, int] | None = None

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """Do some work to its end on the device, and keep how long it took."""
        self._wait()
        started = time.perf_counter()
        result = work()
        self._wait()
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        return result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def run(setting: Setting) -> list[Row]:
    """Measure the rows, if there is a GPU."""
    if not torch.cuda.is_available():
        return [Row(name, bar=bar, missing="no CUDA device here") for name, bar in BARS.items()]
    device, cells = use("cuda", 0), bench_cells()
    went_through(device, cells, _WARM_EPOCHS, 1, N_CELLS)  # kernels are loaded, graphs captured
    course = went_through(device, cells, _EPOCHS, setting.n_rounds, N_CELLS)
    rows = rows_of(course, cells, _EPOCHS, N_CELLS)
    short = ShortCourse(device, cells)
    return [row.explained(lambda row=row: short.profile(row.what)) for row in rows]


@dataclass
class ShortCourse:
    """A course of few epochs for the profiles; a stage is trained when the first of them asks.

    Parameters
    ----------
    device, cells
        Where, and what is learnt from.
    engine
        How it is computed: as shipped.
    """

    device: torch.device
    cells: BenchCells
    engine: Engine = field(default_factory=lambda: plain_engine(section("compute", ComputeConfig)))

    def profile(self, name: str) -> str:
        """Return the kernels (on a CPU: the operators) of what a row measures.

        Empty for memory, which has none.
        """
        if name == PEAK:
            return ""
        if name == INFERENCE:
            asked = Asked.of(self._complete[0], self.cells, N_CELLS).to(self.device)
            return self._seen(lambda: our_means(self._complete[0], asked), 1, "call")
        is_first = name == STAGE_1
        _, history = self._encoded if is_first else self._complete
        n_steps = int(history.rows[-1]["step"])
        return self._seen(self._train_vae if is_first else self._train_flow, n_steps, "step")

    def _seen(self, course: Callable[[], Any], n_units: int, unit: str) -> str:
        def work() -> None:
            course()
            if self.device.type == "cuda":  # or the plain time would be that of the launches
                torch.cuda.synchronize(self.device)

        return profile_of(work, n_units, unit, self.device.type)

    @cached_property
    def _encoded(self) -> tuple[Bundle, History]:
        return self._train_vae()

    @cached_property
    def _complete(self) -> tuple[Bundle, History]:
        return self._train_flow()

    def _train_vae(self) -> tuple[Bundle, History]:
        config = vae_config(_WARM_EPOCHS)
        return fit_vae(self.cells.training, config, self.device, engine=self.engine)

    def _train_flow(self) -> tuple[Bundle, History]:
        (encoded, _), config = self._encoded, flow_config(_WARM_EPOCHS)
        return fit_flow(encoded, self.cells.training, config, self.device, engine=self.engine)


def went_through(
    device: torch.device, cells: BenchCells, n_epochs: int, n_rounds: int, n_generated: int
) -> Course:
    """Train both stages and generate, on any device.

    Parameters
    ----------
    device
        Where; a CPU takes the same way, and has no peak.
    cells
        To learn from.
    n_epochs
        Of each stage.
    n_rounds
        How often all of it is done.
    n_generated
        Cells to generate.
    """
    course = Course(device)
    if device.type == "cuda":
        torch.cuda.init()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    vae, flow = vae_config(n_epochs), flow_config(n_epochs)
    engine = plain_engine(section("compute", ComputeConfig))
    for _ in range(n_rounds):
        bundle, history = course.timed(
            STAGE_1, lambda: fit_vae(cells.training, vae, device, engine=engine)
        )
        _keep_steps(course, STAGE_1, history.rows)
        bundle, history = course.timed(
            STAGE_2,
            lambda bundle=bundle: fit_flow(bundle, cells.training, flow, device, engine=engine),
        )
        _keep_steps(course, STAGE_2, history.rows)
        _generate(course, bundle, cells, n_generated)
        del bundle  # or the next round's peak would hold two models
    if device.type == "cuda":
        reserved = torch.cuda.max_memory_reserved(device)
        course.peaks = (torch.cuda.max_memory_allocated(device), reserved)
    return course


def _generate(course: Course, bundle: Bundle, cells: BenchCells, n_generated: int) -> None:
    asked = Asked.of(bundle, cells, n_generated).to(course.device)
    means = course.timed(INFERENCE, lambda: our_means(bundle, asked))
    assert bool(torch.isfinite(means).all())


def _keep_steps(course: Course, name: str, rows: list[dict[str, float]]) -> None:
    mean = sum(row["step_seconds"] for row in rows) / len(rows)
    course.step_seconds.setdefault(name, []).append(mean)


def rows_of(course: Course, cells: BenchCells, n_epochs: int, n_generated: int) -> list[Row]:
    """Return what was measured as rows of the table."""
    sizes = f"{cells.describe()}; {n_epochs} epochs, {CELLS_PER_STEP} cells a step"
    notes = {
        name: [
            f"{sizes}; with its one validation and the last encoding",
            f"of a step: {spread(course.step_seconds[name], 1e3).text(' ms')}",
        ]
        for name in (STAGE_1, STAGE_2)
    }
    notes[INFERENCE] = [
        f"{n_generated:,} cells x {cells.train.n_genes:,} genes, {N_STEPS} Euler steps; given: "
        "conditions, encoded sources, technical latents, library sizes"
    ]
    rows = [
        Row(name, spread(course.seconds[name]), unit="s", bar=BARS[name], notes=notes[name])
        for name in (STAGE_1, STAGE_2, INFERENCE)
    ]
    return [*rows, _peak(course)]


def _peak(course: Course) -> Row:
    if course.peaks is None:
        return Row(PEAK, bar=BARS[PEAK], missing="no CUDA device here")
    allocated, reserved = (peak / _GIB for peak in course.peaks)
    note = (
        "allocated by torch over both stages and the generation, the means of all cells "
        f"included; reserved: {reserved:.3g} GiB; CUDA's own context is not in it"
    )
    return Row(PEAK, spread([allocated]), unit="GiB", bar=BARS[PEAK], notes=[note])
