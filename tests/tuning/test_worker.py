"""A worker that finds what dead ones have left."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cfmvc.tracking.config import sqlite_file
from cfmvc.tuning.search import RETRY_OF
from cfmvc.tuning.tune import StudyAtHand
from tests.tuning.conftest import with_tune


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")  # the trials are to have no worker
@pytest.mark.filterwarnings("ignore:RetryHeartbeatStaleTrialCallback is experimental")
def test_trials_whose_workers_died_before_they_had_a_name_are_carried_out_once_more(
    workspace: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the first sign of life, or after it and before the name was written."""
    monkeypatch.setattr("cfmvc.tracking.sender._MOST_WAITS", 0)  # the study's run never comes
    warm = [{"flow.lr": 0.005}]
    at_hand = StudyAtHand.open(workspace, with_tune(params, n_trials=2, warm_start=warm))
    study, storage = at_hand.study, at_hand.study._storage
    file = sqlite_file(at_hand.uri)
    assert file is not None
    trials = [study.ask() for _ in range(2)]
    storage.record_heartbeat(trials[1]._trial_id)
    with sqlite3.connect(file) as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
    said: list[str] = []
    at_hand.worker(None, said.append).work()
    ended = study.trials
    assert [trial.state.name for trial in ended] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    again = {trial.system_attrs[RETRY_OF]: trial.params for trial in ended[2:]}
    assert again == {0: {"flow.lr": params["flow"]["lr"]}, 1: {"flow.lr": 0.005}}
