"""A short soak; `make soak` is the long one."""

from pathlib import Path

import pytest

from benchmarks.soak.cells import Plan
from benchmarks.soak.soak import Soak


@pytest.mark.slow
def test_faults_end_with_the_right_model_or_the_right_error(tmp_path: Path) -> None:
    kinds = ["SIGKILL", "truncated checkpoint", "full disk"]
    # Through one door: the processes of the other one take three times as long to start.
    soak = Soak(tmp_path, Plan(n_epochs=2), seed=3, kinds=kinds, doors=("fit",))
    told: list[str] = []
    scores = soak.run(200, told.append)
    assert not [wrong for score in scores.values() for wrong in score.wrong], told
    assert soak.n_steps >= 200
    assert sum(score.n_injected for score in scores.values()) > 0
