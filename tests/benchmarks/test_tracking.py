"""The row on tracking measures what it says: the same training, and a run that has arrived."""

import pytest

from benchmarks.engine.cells import section
from benchmarks.engine.tracking import measured
from cfmvc.data.config import SimulateConfig


@pytest.mark.slow
def test_the_row_on_a_small_training() -> None:
    row = measured(section("simulate", SimulateConfig, n_cells=300, n_genes=40), 0.5, n_rounds=1)
    assert row.is_met is not None
    assert row.holds == {"all figures of the last run are in the store": True}
    assert "opening the run" in row.notes[-1]
