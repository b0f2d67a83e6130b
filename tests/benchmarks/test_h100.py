"""The way that the GPU rows take, on a CPU and with few cells."""

import pytest
import torch

from benchmarks.engine.cells import bench_cells
from benchmarks.engine.h100 import (
    BARS,
    INFERENCE,
    PEAK,
    STAGE_1,
    STAGE_2,
    ShortCourse,
    rows_of,
    run,
    went_through,
)
from benchmarks.engine.results import cells_of
from benchmarks.engine.setting import Setting


@pytest.mark.slow
def test_all_of_the_course_is_timed_on_any_device() -> None:
    cells = bench_cells(300, 40)
    course = went_through(torch.device("cpu"), cells, n_epochs=2, n_rounds=2, n_generated=50)
    rows = {row.what: row for row in rows_of(course, cells, 2, 50)}
    assert set(rows) == set(BARS)
    for name in set(BARS) - {PEAK}:
        assert len(course.seconds[name]) == 2
        assert rows[name].is_met is not None
    assert rows[PEAK].is_met is None


@pytest.mark.slow
def test_what_misses_its_bar_is_profiled() -> None:
    short = ShortCourse(torch.device("cpu"), bench_cells(200, 30))
    for name, unit in ((STAGE_1, "step"), (STAGE_2, "step"), (INFERENCE, "call")):
        table = short.profile(name)
        assert f"ms a {unit} without the profiler" in table
        assert "aten::addmm" in table
    assert short.profile(PEAK) == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="here there is something to measure")
def test_without_a_gpu_nothing_is_claimed() -> None:
    rows = run(Setting(1))
    assert [row.bar for row in rows] == list(BARS.values())
    assert {cells_of(row)[1] for row in rows} == {"not measured: no CUDA device here"}
