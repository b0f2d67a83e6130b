"""The row against scvi-tools: skipped in words without its environment, and true with it."""

from pathlib import Path

import pytest

from benchmarks.engine.cells import bench_cells
from benchmarks.engine.results import cells_of
from benchmarks.engine.scvi import PYTHON, run, scvi_of
from benchmarks.engine.setting import Setting


def test_without_its_environment_the_row_says_how_to_get_it(tmp_path: Path) -> None:
    (row,) = run(Setting(1), tmp_path / "python")
    assert cells_of(row)[1] == "not measured: run `make bench-env`"
    assert row.is_met is None


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.is_file(), reason="no environment of scvi-tools: make bench-env")
def test_the_worker_trains_on_the_cells_and_scores_them() -> None:
    cells = bench_cells(300, 40)
    with scvi_of(cells) as (scvi, versions):
        short = scvi.ask(n_epochs=1, n_threads=1, n_cells=128)
        whole = scvi.ask(n_epochs=3, n_threads=1, is_scored=True)
    assert versions["scvi-tools"].startswith("1.4.")
    assert short["n_steps"] == 2
    assert whole["n_steps"] == 3 * cells.n_steps
    assert 0 < whole["step_seconds"] * whole["n_steps"] < whole["whole_seconds"]
    assert 40 < whole["minus_log_p"] < 400  # 40 genes, of a few nats each
