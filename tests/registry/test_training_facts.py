"""What a training has cost, of which the gate is told."""

from pathlib import Path

import pytest

from cfmvc.registry.training_facts import PEAK_MEMORY_TAG, recorded, training_facts
from cfmvc.tracking import stage_run
from cfmvc.tracking.store import Store
from tests.tracking.conftest import CONFIG


def test_memory_is_the_largest_of_any_stage_the_joint_one_included(
    workspace: Path, store: Store
) -> None:
    figures = {
        "train_vae": {"peak_rss_gib": 2.0, "estimated_peak_memory_gib": 99.0},
        "train_flow": {"peak_rss_gib": 1.0, "joint_peak_gpu_allocated_gib": 60.0},
    }
    for stage, metrics in figures.items():
        with stage_run(stage, workspace, CONFIG) as tracker:
            tracker.log_metrics(metrics, step=0)
            tracker.wait_for_run(60)
            tracker.write_link(workspace / "results" / "runs" / f"{stage}.json")
    assert training_facts(workspace, store) == {PEAK_MEMORY_TAG: "60"}


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12.0), ("1.5", 1.5), ("many", None), ("", None), ("nan", None)]
)
def test_what_somebody_wrote_into_a_tag_is_recorded_if_it_is_a_number(
    text: str, number: float | None
) -> None:
    assert recorded({"of": text}, "of") == number
    assert recorded({}, "of") is None
