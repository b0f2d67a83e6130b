"""What a training has cost, of which the gate is told."""

from pathlib import Path

from cfmvc.registry.training_facts import PEAK_MEMORY_TAG, training_facts
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
