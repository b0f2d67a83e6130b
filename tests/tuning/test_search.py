"""A study is opened: its own, a new one, one that was never begun, or somebody else's."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from cfmvc.errors import ConfigError
from cfmvc.tuning.search import FINGERPRINT, QUEUED, Search
from tests.tuning.conftest import with_tune


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tune.db'}"


def queued(study: optuna.Study) -> list[dict[str, Any]]:
    """Return the parameters of the trials that wait, in their order."""
    waiting = study.get_trials(states=[optuna.trial.TrialState.WAITING])
    return [trial.system_attrs[QUEUED] for trial in waiting]


def search_of(params: dict[str, Any], **tune: Any) -> Search:
    return Search.of(with_tune(params, warm_start=[{"flow.lr": 0.002}, {"flow.lr": 0.003}], **tune))


@pytest.mark.parametrize("how", ["other end", "trials of its own", "other queue"])
def test_a_study_of_another_tool_is_refused_and_left_as_it_was(
    how: str, params: dict[str, Any], uri: str
) -> None:
    direction = "maximize" if how == "other end" else "minimize"
    foreign = optuna.create_study(storage=uri, study_name="screen", direction=direction)
    if how == "trials of its own":
        foreign.optimize(lambda trial: trial.suggest_float("learning_rate", 0, 1), n_trials=2)
    if how == "other queue":
        foreign.enqueue_trial({"learning_rate": 0.1})
    with pytest.raises(ConfigError, match=r"study 'screen': is there.*another --study"):
        search_of(params).open(uri, "screen", "f")
    again = optuna.load_study(storage=uri, study_name="screen")
    assert again.user_attrs == {}
    assert [trial.params for trial in again.trials] == [trial.params for trial in foreign.trials]


@pytest.mark.parametrize("n_queued", [0, 1, 2, 3])
def test_what_was_killed_while_it_queued_its_first_trials_queues_the_rest(
    n_queued: int, params: dict[str, Any], uri: str
) -> None:
    search = search_of(params)
    killed = optuna.create_study(storage=uri, study_name="s", direction="minimize")
    first = [params["flow"]["lr"], 0.002, 0.003]
    for rate in first[:n_queued]:
        killed.enqueue_trial({"flow.lr": rate})
    for _ in range(2):
        study = search.open(uri, "s", "f")
        assert queued(study) == [{"flow.lr": rate} for rate in first]
    assert study.user_attrs[FINGERPRINT] == "f"


@pytest.mark.parametrize("n_queued", [0, 1])
def test_a_point_that_comes_twice_is_tried_once(
    n_queued: int, params: dict[str, Any], uri: str
) -> None:
    """As after ``cfmvc tune apply``, which makes a warm start the present values."""
    params["flow"] = {**params["flow"], "lr": 0.002}
    warm = [{"flow.lr": 0.002}, {"flow.lr": 0.003}, {"flow.lr": 0.003}, {"vae.beta": 0.7}]
    if n_queued:  # killed while it queued them
        killed = optuna.create_study(storage=uri, study_name="s", direction="minimize")
        killed.enqueue_trial({"flow.lr": 0.002})
    study = Search.of(with_tune(params, warm_start=warm, n_trials=9)).open(uri, "s", "f")
    assert queued(study) == [{"flow.lr": 0.002}, {"flow.lr": 0.003}]


def test_no_more_trials_are_queued_than_were_asked_for(params: dict[str, Any], uri: str) -> None:
    study = search_of(params, n_trials=2).open(uri, "s", "f")
    assert queued(study) == [{"flow.lr": params["flow"]["lr"]}, {"flow.lr": 0.002}]
