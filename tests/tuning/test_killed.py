"""Studies whose workers are killed at any moment, on real databases."""

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from cfmvc.tracking.process import ProcessIdentity
from cfmvc.tracking.store import Store
from cfmvc.tuning.search import RETRY_OF
from cfmvc.tuning.storage import open_storage
from tests.forked import ForkedModule
from tests.tuning.conftest import with_tune, write_params

N_TRIALS = 8
BEGUN = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def start(workspace: Path, *options: str) -> ForkedModule:
    """Start ``cfmvc tune`` as a process of its own."""
    arguments = ["tune", "--study", "s", "--no-test", *options]
    return ForkedModule("cfmvc", arguments, workspace, os.environ)  # one thread, and our own code


def study_in(uri: str) -> optuna.Study:
    """Return the study once a process has made it."""
    deadline = time.monotonic() + 120
    storage = open_storage(uri, 1, lambda study, trial: None)
    while time.monotonic() < deadline:
        with suppress(KeyError):
            return optuna.load_study(study_name="s", storage=storage)
        time.sleep(0.2)
    raise AssertionError("there is no study")


def wait_for_trials(study: optuna.Study, n: int) -> None:
    """Wait until so many trials have begun."""
    deadline = time.monotonic() + 120
    while sum(trial.state in BEGUN for trial in study.trials) < n:
        assert time.monotonic() < deadline, f"{n} trials did not begin"
        time.sleep(0.05)


def is_alive(worker: str) -> bool:
    process = ProcessIdentity.parse(worker)
    return process is not None and process.is_alive()


def kill_one_of(workers: list[ForkedModule], rng: random.Random) -> None:
    """Kill a worker that has not ended: on a machine that stalls, one may have."""
    for worker in rng.sample(workers, len(workers)):
        worker.kill()
        if worker.wait(60) == -signal.SIGKILL:
            return
    raise AssertionError("all workers had ended before one could be killed")


def expect_whole(study: optuna.Study, store: Store, n_killed: int) -> None:
    """Every trial has ended, none was carried out twice, and MLflow tells the same story."""
    trials = study.trials
    asked = [trial for trial in trials if RETRY_OF not in trial.system_attrs]
    assert len(asked) == N_TRIALS
    ended = Counter(trial.state for trial in trials)
    assert set(ended) <= {TrialState.COMPLETE, TrialState.FAIL}
    assert ended[TrialState.FAIL] <= n_killed
    retried = [trial.system_attrs[RETRY_OF] for trial in trials if RETRY_OF in trial.system_attrs]
    assert len(set(retried)) == len(retried), "tried again once"
    for trial in trials:
        if RETRY_OF in trial.system_attrs:
            first = trials[trial.system_attrs[RETRY_OF]]
            assert first.state == TrialState.FAIL
            assert first.params.items() <= trial.params.items()
    done = {t.system_attrs.get(RETRY_OF, t.number) for t in trials if t.state.name == "COMPLETE"}
    assert done == {trial.number for trial in asked}
    runs = list(store.find_runs(store.experiment_ids(), ""))
    assert not [run.info.run_name for run in runs if run.info.status == "RUNNING"]
    parents = [run for run in runs if run.info.run_name == "tune"]
    assert len(parents) == 1
    children = {run.data.tags["cfmvc.uid"]: run for run in runs if run is not parents[0]}
    for trial in trials:
        run = children.get(trial.user_attrs.get("claim", {}).get("run_uid"))
        if trial.state == TrialState.COMPLETE:
            assert run is not None
            assert run.info.status == "FINISHED"
            assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    best = [
        run for run in children.values() if run.info.run_name == f"trial {study.best_trial.number}"
    ]
    told = best[0].data.metrics["validation/energy_distance"]
    assert told == pytest.approx(study.best_value)
    assert parents[0].data.metrics["best/energy_distance"] == pytest.approx(study.best_value)


def planned(params: dict[str, Any], **tune: Any) -> dict[str, Any]:
    return with_tune(params, n_trials=N_TRIALS, pruner="none", n_looks=0, **tune)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("repeat", [0, 2, 4])  # early, in the middle, late
def test_four_workers_on_postgresql_of_which_one_is_killed(
    repeat: int, workspace: Path, store: Store, params: dict[str, Any], fresh_postgres: str
) -> None:
    rng = random.Random(repeat)
    write_params(workspace, planned(params, storage=fresh_postgres))
    workers = [start(workspace) for _ in range(4)]
    study = study_in(fresh_postgres)
    wait_for_trials(study, 1 + repeat)
    time.sleep(rng.uniform(0.0, 0.3))
    kill_one_of(workers, rng)
    codes = [worker.wait(300) for worker in workers]
    assert sorted(codes) == [-signal.SIGKILL, 0, 0, 0], [w.communicate()[0] for w in workers]
    # Had it been the one that owns the study's run, the next to come takes that up.
    assert start(workspace).wait(120) == 0
    expect_whole(study, store, n_killed=1)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_study_goes_on_after_the_death_of_the_parent_and_its_crew(
    workspace: Path, store: Store, params: dict[str, Any]
) -> None:
    uri = f"sqlite:///{workspace / '.cfmvc' / 'tune.db'}"
    write_params(workspace, planned(params))
    parent = start(workspace, "--workers", "2")
    study = study_in(uri)
    wait_for_trials(study, 3)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    workers = {trial.user_attrs["claim"]["worker"] for trial in study.trials if trial.user_attrs}
    while any(is_alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "its workers have not noticed"
        time.sleep(0.2)
    n_begun = len(study.trials)
    assert n_begun < N_TRIALS + 2, "they went on without it"
    again = start(workspace, "--workers", "2")
    assert again.wait(240) == 0, again.communicate()[0]
    expect_whole(study, store, n_killed=2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_sweeps_at_once_on_one_sqlite_file(
    workspace: Path, store: Store, params: dict[str, Any]
) -> None:
    write_params(workspace, planned(params, storage="sqlite:///both.db"))
    both = [start(workspace) for _ in range(2)]
    assert [sweep.wait(240) for sweep in both] == [0, 0], [s.communicate()[0] for s in both]
    expect_whole(study_in(f"sqlite:///{workspace / 'both.db'}"), store, n_killed=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_trial_that_is_interrupted_is_the_next_one_to_be_tried(
    number: signal.Signals, workspace: Path, store: Store, params: dict[str, Any]
) -> None:
    params["flow"]["n_epochs"] = 2000
    params["flow"]["patience"] = 2000
    write_params(workspace, with_tune(params, n_trials=1, pruner="none", n_looks=0))
    uri = f"sqlite:///{workspace / '.cfmvc' / 'tune.db'}"
    sweep = start(workspace)
    study = study_in(uri)
    wait_for_trials(study, 1)
    time.sleep(1.0)
    sweep.send_signal(number)
    assert sweep.wait(60) in (130, 143), sweep.communicate()[0]
    first, second = study.trials
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.WAITING)
    assert second.system_attrs["fixed_params"] == first.system_attrs["fixed_params"]
    statuses = {run.info.status for run in store.find_runs(store.experiment_ids(), "")}
    assert statuses == {"KILLED"}
