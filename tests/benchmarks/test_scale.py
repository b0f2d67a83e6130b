"""What two trainings at once are told to have done in the same seconds."""

from pathlib import Path

import pytest

from benchmarks.engine.scale import Epoch, Race, Run, _epochs
from cfmvc.tracking import stage_run
from tests.tracking.conftest import CONFIG, _own_store, store, template_store, workspace

__all__ = ["_own_store", "store", "template_store", "workspace"]


def run_of(*epochs: tuple[float, float, float]) -> Run:
    return Run(1.0, 0.1, [Epoch(*epoch) for epoch in epochs])


def test_seconds_that_both_are_in_an_epoch_count() -> None:
    ours = run_of((10.0, 20.0, 100.0), (20.0, 30.0, 200.0))
    beside = [run_of((0.0, 9.0, 7.0)), run_of((15.0, 20.0, 40.0), (20.0, 25.0, 80.0))]
    assert Race(ours, beside).rates() == (pytest.approx(150.0), pytest.approx(60.0))
    assert "150 and 60 (2.50x)" in Race(ours, beside).text
    assert Race(ours, beside[:1]).text == "never in an epoch together"


def test_epochs_are_read_from_the_last_run_of_a_stage(workspace: Path) -> None:
    for speed in (1.0, 2.0):
        with stage_run("train_vae", workspace, CONFIG) as tracker:
            for step in (4, 8):
                figures = {"cells_per_second": speed * step, "step_seconds": 0.5}
                tracker.log_metrics(figures, step=step)
    epochs = _epochs(workspace, "train_vae")
    assert [epoch.cells_per_second for epoch in epochs] == [8.0, 16.0]
    assert [epoch.ended - epoch.began for epoch in epochs] == pytest.approx([2.0, 2.0])
