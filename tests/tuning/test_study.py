"""Whole studies on real stores, with trials that end in every way there is."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from ruamel.yaml import YAML

from cfmvc.cli.applying import applied
from cfmvc.errors import CfmvcError, ConfigError, DataError
from cfmvc.tracking.store import Store
from cfmvc.tracking.tracker import NullTracker
from cfmvc.tuning.files import BEST, TRIALS
from cfmvc.tuning.objectives import objectives_of
from cfmvc.tuning.pictures import pictures
from cfmvc.tuning.search import Search, retry
from cfmvc.tuning.trainer import Trainer
from cfmvc.tuning.tune import PREPARED, StudyAtHand, tune
from tests.tuning.conftest import with_tune, write_params

FLOW = {"flow.lr": {"low": 1e-4, "high": 1e-2, "log": True}}


def runs(store: Store) -> dict[str, Any]:
    found = store.find_runs(store.experiment_ids(), "")
    return {run.info.run_name: run for run in found}


def states(store: Store) -> dict[str, tuple[str, str]]:
    """Return MLflow's status and Optuna's state of each trial."""
    return {
        name: (run.info.status, run.data.tags["cfmvc.trial_state"])
        for name, run in runs(store).items()
        if name.startswith("trial")
    }


@pytest.mark.slow
def test_trials_that_share_a_vae_train_it_once(
    workspace: Path, store: Store, params: dict[str, Any]
) -> None:
    space = {**FLOW, "vae.beta": {"choices": [0.1, 0.5]}}
    planned = with_tune(params, space=space, n_trials=8, pruner="none", n_looks=0)
    result = tune(workspace, planned, with_test=False)
    table = pd.read_csv(workspace / TRIALS)
    assert len(table) == 8
    assert table["vae.beta"].nunique() == 2
    assert result.n_vae_trainings == table["vae_trained"].sum() == 2
    assert table.groupby("vae")["vae.beta"].nunique().tolist() == [1, 1]
    parent = runs(store)["tune"]
    assert parent.data.metrics["n_vae_trainings"] == 2


def test_a_study_is_one_run_with_a_child_for_each_trial(
    workspace: Path, store: Store, params: dict[str, Any]
) -> None:
    planned = with_tune(params, n_trials=5, warm_start=[{"flow.lr": 0.005}], n_startup_trials=5)
    result = tune(workspace, planned)
    found = runs(store)
    parent = found.pop("tune")
    assert parent.info.status == "FINISHED"
    assert sorted(found) == [f"trial {number}" for number in range(5)]
    for run in found.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["cfmvc.study"] == result.study
        assert run.info.experiment_id == parent.info.experiment_id
        assert {"validation/energy_distance", "look/energy_distance"} <= set(run.data.metrics)
        assert "flow.lr" in run.data.params
    assert set(states(store).values()) == {("FINISHED", "COMPLETE")}
    assert float(found["trial 0"].data.params["flow.lr"]) == params["flow"]["lr"]
    assert float(found["trial 1"].data.params["flow.lr"]) == 0.005
    artifacts = {file.path for file in store.client.list_artifacts(parent.info.run_id)}
    assert {"best_params.yaml", "trials.csv", "pictures"} <= artifacts
    files = store.client.list_artifacts(parent.info.run_id, "pictures")
    assert {Path(file.path).stem for file in files} == {
        "history",
        "importance",
        "parallel_coordinate",
        "intermediate_values",
    }
    table = pd.read_csv(workspace / TRIALS)
    best = table.loc[table["energy_distance"].idxmin()]
    assert result.best["trial"] == best["trial"]
    assert best["best"]
    said = YAML(typ="safe").load(workspace / BEST)
    assert said["params"]["flow"]["lr"] == pytest.approx(best["flow.lr"])
    assert said["objectives"]["energy_distance"]["validation"] == pytest.approx(
        best["energy_distance"]
    )
    (confirmation,) = result.confirmations
    assert confirmation.best == parent.data.metrics["test/best/energy_distance"]
    assert confirmation.present == parent.data.metrics["test/present/energy_distance"]
    assert said["test"] == {"energy_distance": confirmation.as_json()}
    assert "found_with" not in said


def test_pictures_of_a_study_leave_those_of_others_as_they_were() -> None:
    import matplotlib as mpl

    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    before = dict(mpl.rcParams)
    assert "history.png" in pictures(study, objectives_of(["energy_distance"]))
    assert dict(mpl.rcParams) == before


def test_a_study_goes_on_and_is_what_it_would_have_been(
    workspace: Path, store: Store, params: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    planned = with_tune(params, n_trials=4)
    for n_trials in (2, 4, 4):
        tune(workspace, with_tune(planned, n_trials=n_trials), with_test=False)
    parts = pd.read_csv(workspace / TRIALS)
    parents = [run for name, run in runs(store).items() if name == "tune"]
    assert len(parents) == 1
    whole = with_tune(planned, storage="sqlite:///whole.db")
    tune(workspace, whole, with_test=False)
    same = ["trial", "state", "energy_distance", "flow.lr"]
    pd.testing.assert_frame_equal(parts[same], pd.read_csv(workspace / TRIALS)[same])


def test_a_study_about_something_else_is_refused(workspace: Path, params: dict[str, Any]) -> None:
    planned = with_tune(params, study="mine", n_trials=1)
    tune(workspace, planned, with_test=False)
    planned["vae"]["beta"] = 0.7
    with pytest.raises(ConfigError, match="study 'mine': was begun with other data"):
        tune(workspace, planned, with_test=False)


def test_bad_trials_end_as_what_they_are_and_the_study_goes_on(
    workspace: Path, store: Store, params: dict[str, Any]
) -> None:
    """NaN: a rate at which weights overflow. Memory: a layer of terabytes. Both are real."""
    space = {
        "flow.lr": {"choices": [0.001, 1e30]},
        "flow.hidden_dim": {"choices": [16, 2_000_000_000]},
    }
    warm = [{"flow.lr": 1e30}, {"flow.hidden_dim": 2_000_000_000}]
    planned = with_tune(params, space=space, warm_start=warm, n_trials=3)
    planned["flow"] |= {"max_consecutive_vetoes": 2, "nan_check_interval": 1}
    result = tune(workspace, planned, with_test=False)
    assert states(store) == {
        "trial 0": ("FINISHED", "COMPLETE"),
        "trial 1": ("KILLED", "PRUNED"),
        "trial 2": ("FAILED", "FAIL"),
    }
    assert result.best["trial"] == 0
    found = runs(store)
    assert "not finite" in found["trial 1"].data.tags["cfmvc.reason"]
    assert found["trial 1"].data.metrics["flow_nan_events"] >= 2
    events = {file.path for file in store.client.list_artifacts(found["trial 1"].info.run_id)}
    assert {"events", "nan_black_box"} <= events
    assert found["trial 2"].data.tags["cfmvc.reason"].startswith("out of memory")
    table = pd.read_csv(workspace / TRIALS).set_index("trial")
    assert table["state"].tolist() == ["COMPLETE", "PRUNED", "FAIL"]
    assert table.loc[2, "reason"].startswith("out of memory")


def test_the_sampler_learns_from_trials_that_were_not_finite(params: dict[str, Any]) -> None:
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=8))

    def value_of(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if x > 0.5:
            raise optuna.TrialPruned
        return 1.0

    study.optimize(value_of, n_trials=60)
    late = study.trials[20:]
    n_bad = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in late)
    assert n_bad < len(late) / 4, "half of them would be, had it not learnt"


def test_a_study_in_which_all_fails_ends_with_the_reason(
    workspace: Path, store: Store, params: dict[str, Any]
) -> None:
    params["flow"]["hidden_dim"] = 2_000_000_000
    planned = with_tune(params, n_trials=9, max_failures_in_a_row=2)
    with pytest.raises(CfmvcError, match=r"2 trials in a row have failed.*out of memory"):
        tune(workspace, planned, with_test=False)
    assert runs(store)["tune"].info.status == "FAILED"
    assert set(states(store).values()) == {("FAILED", "FAIL")}


def test_a_study_that_failures_end_leaves_what_it_has_found(
    workspace: Path, store: Store, params: dict[str, Any]
) -> None:
    wide = [2_000_000_000, 2_000_000_001]
    planned = with_tune(
        params,
        space={"flow.hidden_dim": {"choices": [16, *wide]}},
        warm_start=[{"flow.hidden_dim": width} for width in wide],
        n_trials=9,
        max_failures_in_a_row=2,
    )
    said: list[str] = []
    with pytest.raises(CfmvcError, match="2 trials in a row have failed"):
        tune(workspace, planned, say=said.append)
    assert pd.read_csv(workspace / TRIALS)["state"].tolist() == ["COMPLETE", "FAIL", "FAIL"]
    assert YAML(typ="safe").load(workspace / BEST)["trial"] == 0
    assert "results/tune holds what it has found" in said[-1]
    run = runs(store)["tune"]
    assert run.info.status == "FAILED"
    assert "best/energy_distance" in run.data.metrics
    assert "trials.csv" in {file.path for file in store.client.list_artifacts(run.info.run_id)}
    planned["tune"]["study"] = "again"
    (workspace / "results").rename(workspace / "before")
    (workspace / "results").touch()  # no folder: nothing can be written there
    with pytest.raises(CfmvcError, match="2 trials in a row have failed"):
        tune(workspace, planned, say=said.append)
    assert "its results could not be written" in said[-1]


def test_an_objective_that_is_not_defined_is_said_and_not_called_complete(
    workspace: Path, store: Store, params: dict[str, Any]
) -> None:
    """Discrimination needs a second perturbation in the stratum; one condition is held out."""
    planned = with_tune(params, objectives=["discrimination"], n_trials=2, max_failures_in_a_row=1)
    planned["tune"]["validation_fraction"] = 0.01
    with pytest.raises(CfmvcError, match="'discrimination' is not defined on the validation"):
        tune(workspace, planned, with_test=False)
    assert states(store) == {"trial 0": ("FAILED", "FAIL")}


def test_several_objectives_give_a_front(
    workspace: Path, store: Store, params: dict[str, Any]
) -> None:
    planned = with_tune(
        params,
        objectives=["energy_distance", "peak_memory_gib"],
        space={"vae.hidden_dim": {"choices": [16, 256]}, **FLOW},
        n_trials=5,
    )
    result = tune(workspace, planned, with_test=False)
    table = pd.read_csv(workspace / TRIALS)
    front = table[table["best"]]
    for _, row in front.iterrows():
        better = table[table["energy_distance"] < row["energy_distance"]]
        assert (better["peak_memory_gib"] > row["peak_memory_gib"]).all()
    assert result.best["trial"] == front["trial"].iloc[front["energy_distance"].argmin()]
    pictures = store.client.list_artifacts(runs(store)["tune"].info.run_id, "pictures")
    assert "pictures/pareto_front.png" in {file.path for file in pictures}


def test_test_cells_are_never_looked_at(workspace: Path, params: dict[str, Any]) -> None:
    """Other counts in all test cells: the same trials, to the bit."""
    import anndata as ad

    planned = with_tune(params, n_trials=2, study="a")
    tune(workspace, planned, with_test=False)
    before = pd.read_csv(workspace / TRIALS)
    cells = ad.read_h5ad(workspace / PREPARED)
    is_test = (cells.obs["split"] == "test").to_numpy()
    counts = cells.layers["counts"].tolil()
    counts[is_test] = 7
    cells.layers["counts"] = counts.tocsr()
    cells.write_h5ad(workspace / PREPARED)
    tune(workspace, with_tune(planned, study="b"), with_test=False)
    after = pd.read_csv(workspace / TRIALS)
    columns = [name for name in before if name.startswith("validation.")]
    columns.remove("validation.train_seconds")
    pd.testing.assert_frame_equal(before[columns], after[columns])


def test_without_prepared_cells_it_says_what_makes_them(
    tmp_path: Path, params: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="`dvc repro prepare` makes it"):
        tune(tmp_path, params)


def test_the_best_parameters_go_into_the_file_and_nothing_else_does(
    workspace: Path, params: dict[str, Any]
) -> None:
    planned = with_tune(params, n_trials=2, warm_start=[{"flow.lr": 0.007}])
    planned["vae"] = {**planned["vae"], "n_epochs": 3}  # by --set
    tune(workspace, planned, with_test=False)
    said = YAML(typ="safe").load(workspace / BEST)
    assert said["found_with"] == {"vae": {"n_epochs": 3}}
    said["params"] = {"flow": {"lr": 0.007, "source": "noise"}, "vae": {"beta": 2.5e-05}}
    (workspace / BEST).write_text("# c\n")
    YAML().dump(said, workspace / BEST)
    before = (workspace / "params.yaml").read_text().replace("control  ", "control")
    (workspace / "params.yaml").write_text("# mine\n" + before)
    lines = applied(workspace)
    assert lines[:2] == ["flow.lr: 0.001 -> 0.007", "flow.source: control -> noise"]
    text = (workspace / "params.yaml").read_text()
    assert text.startswith("# mine\n")
    changed = YAML(typ="safe").load(text)
    expected = {**params, "flow": {**params["flow"], "lr": 0.007, "source": "noise"}}
    expected["vae"] = {**params["vae"], "beta": 2.5e-05}
    assert changed == expected
    assert applied(workspace) == ["params.yaml has these values already"]


def test_applying_without_a_study_is_an_error(workspace: Path, params: dict[str, Any]) -> None:
    write_params(workspace, params)
    with pytest.raises(ConfigError, match="`cfmvc tune` makes them"):
        applied(workspace)


def test_a_living_trial_that_was_taken_for_dead_ends_no_worker(
    workspace: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a suspended machine: another worker has failed it, and queued it once more."""
    monkeypatch.setattr("cfmvc.tracking.sender._MOST_WAITS", 0)  # the study's run never comes
    at_hand = StudyAtHand.open(workspace, with_tune(params, n_trials=1))
    said: list[str] = []
    worker, study = at_hand.worker(None, said.append), at_hand.study

    class Slow:
        def __init__(self, trainer: Trainer) -> None:
            self.trainer = trainer

        def run(self, *arguments: Any) -> Any:
            running = [trial for trial in study.trials if trial.state == TrialState.RUNNING]
            if running[0].number == 0:
                study.tell(0, state=TrialState.FAIL)
                retry(study, study.trials[0])
            return self.trainer.run(*arguments)

    worker.trainer = Slow(worker.trainer)
    worker.work()
    assert said[0] == "trial 0: was taken for dead, and is carried out once more"
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]


class Interrupted(optuna.samplers.RandomSampler):
    """Is stopped by Ctrl-C while it draws."""

    def infer_relative_search_space(self, *_: Any) -> Any:
        raise KeyboardInterrupt


def test_ctrl_c_while_a_trial_is_drawn_leaves_nothing_to_be_tried_again(
    workspace: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cfmvc.tracking.sender._MOST_WAITS", 0)  # the study's run never comes
    at_hand = StudyAtHand.open(workspace, with_tune(params, n_trials=2, n_startup_trials=1))
    worker, study = at_hand.worker(None, lambda words: None), at_hand.study
    study.sampler, before = Interrupted(), study.sampler
    with pytest.raises(KeyboardInterrupt):
        worker.work()
    study.sampler = before
    worker.work()
    assert [trial.state.name for trial in study.trials].count("COMPLETE") == 2


def test_a_vae_that_is_gone_on_with_keeps_the_looks_before(
    workspace: Path, params: dict[str, Any]
) -> None:
    """A killed worker's; the trial that goes on with it, and all that share it, are told them."""
    params["checkpoint"]["every_seconds"] = 0.0
    tuned = with_tune(params, n_trials=1, n_looks=2, pruner="median")
    trainer = StudyAtHand.open(workspace, tuned).trainer
    told: list[tuple[int, dict[str, float]]] = []

    def report(number: int, figures: Mapping[str, float], last: int = 1) -> None:
        if number > last:
            raise KeyboardInterrupt
        told.append((number, dict(figures)))

    with pytest.raises(KeyboardInterrupt):
        trainer.trained(tuned, NullTracker(), report)
    assert [number for number, _ in told] == [1]
    stored = trainer.trained(tuned, NullTracker(), partial(report, last=9)).vae
    assert stored.was_trained
    assert told[1] == told[0]
    assert [number for number, _ in stored.course.looks] == [1, 2]


def test_a_cost_alone_prunes_nothing(params: dict[str, Any]) -> None:
    """At a look it is not known."""
    changed = with_tune(params, objectives=["train_seconds"], n_looks=2, pruner="median")
    assert not Search.of(changed).is_pruned
    changed = with_tune(params, objectives=["energy_distance"], n_looks=2, pruner="median")
    assert Search.of(changed).is_pruned
