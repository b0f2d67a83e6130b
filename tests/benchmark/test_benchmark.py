"""A benchmark as the command carries it out: tables, cache, runs, and errors."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cfmvc.benchmark import score
from cfmvc.benchmark.scores import FoldScores
from cfmvc.cli.benchmarking import benchmarked, benchmarks_text, collected, described
from cfmvc.data.canonical import write_canonical
from cfmvc.errors import ConfigError, DataError
from cfmvc.stages.prediction import Prediction
from cfmvc.tracking.store import Store
from tests.benchmark.conftest import order, plain
from tests.forked import ForkedModule

BASELINES = {"control", "perturbed_mean", "additive", "ridge", "nearest_perturbation"}


def test_a_benchmark_leaves_tables_scores_and_runs(
    workspace: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    asked = order(task="held_out_combination", seeds=2, track=True)
    result = benchmarked(workspace, asked)
    (out, summary), *rest = result.summaries.items()
    assert rest == []
    assert out == Path("results/benchmark/simulated/held_out_combination")
    for name in ("table.md", "table.csv", "by_fold.csv", "methods_by_fold.png"):
        assert (out / name).is_file()
    parts = sorted(path.name for path in (out / "folds").iterdir())
    assert parts == ["01-P1_P2-seed-0", "01-P1_P2-seed-1"]
    one = FoldScores.read(out / "folds" / parts[0])
    assert set(one.per_condition["method"]) >= BASELINES | {"model", "latent_arithmetic"}
    expected = one.per_condition.groupby("method")["energy_distance"].mean()
    pd.testing.assert_series_equal(
        one.averages["energy_distance"].sort_index(), expected, check_names=False
    )
    assert "expectation_error_interactive" in summary.metrics
    table = pd.read_csv(out / "table.csv").set_index(["method", "metric"])
    row = table.loc[("model", "energy_distance")]
    assert row["min"] <= row["mean"] <= row["max"]
    assert row["low"] < row["high"]
    assert table.loc[("control", "expectation_error"), "mean"] > 0
    assert "energy distance" in benchmarks_text(result)
    json.dumps(result.as_json(), allow_nan=False)

    runs = list(store.find_runs(store.experiment_ids(), ""))
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = [run for run in runs if run.info.run_name == "benchmark"]
    assert len(parents) == 1
    children = [run for run in runs if run is not parents[0]]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    tags = [(run.data.tags["cfmvc.fold"], run.data.tags["cfmvc.seed"]) for run in children]
    assert sorted(tags) == [("P1+P2", "0"), ("P1+P2", "1")]
    first = next(run for run in children if run.data.tags["cfmvc.seed"] == "0")
    assert first.data.tags["cfmvc.task"] == "held_out_combination"
    assert first.data.params["vae.seed"] == "0"
    for method in ("model", "ridge"):
        told = first.data.metrics[f"{method}.energy_distance"]
        assert told == pytest.approx(one.averages.loc[method, "energy_distance"])

    n_runs, said = len(runs), list[str]()
    monkeypatch.setattr("cfmvc.cli.benchmarking.say", said.append)
    again = benchmarked(workspace, asked)
    assert said == ["held_out_combination on simulated: 1 fold, seeds 0, 1; 2 of 2 are there"]
    pd.testing.assert_frame_equal(next(iter(again.summaries.values())).table, summary.table)
    assert len(list(store.find_runs(store.experiment_ids(), ""))) == n_runs


def test_what_shapes_a_score_makes_another_one(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    folder = workspace / ".cfmvc" / "benchmark" / "scores"

    def n_kept() -> int:
        return len(list(folder.glob("*/facts.json")))

    plain = order(folds=["type_1"])
    benchmarked(workspace, plain)
    assert n_kept() == 1
    benchmarked(workspace, order(folds=["1"], settings=["vae.seed=7", "tune.n_trials=3"]))
    assert n_kept() == 1, "the seed is the benchmark's, and no trial is tried"
    changed = benchmarked(workspace, order(folds=["type_1"], settings=["flow.lr=0.01"]))
    assert n_kept() == 2
    vaes = workspace / ".cfmvc" / "benchmark" / "vae"
    assert len(list(vaes.glob("*/course.json"))) == 1, "the VAE is the same"
    benchmarked(workspace, order(folds=["type_1"], seeds=None, seed=[4]))
    assert n_kept() == 3
    summary = next(iter(changed.summaries.values()))
    assert summary.folds == ["type_1"]
    assert summary.seeds == [0]


def test_parts_computed_apart_make_the_same_table(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    whole = next(iter(benchmarked(workspace, order(out=Path("whole"))).summaries.values()))
    for fold in ("1", "2"):
        benchmarked(workspace, order(folds=[fold], out=Path("parts") / fold))
    summary = collected(workspace, [Path("parts")], Path("table"), [])
    pd.testing.assert_frame_equal(summary.table, whole.table)
    with pytest.raises(DataError, match="seed 0: is there twice"):
        collected(workspace, [Path("parts"), Path("whole")], Path("table"), [])
    other = {"out": Path("others"), "seeds": None, "seed": [1], "settings": ["flow.n_epochs=1"]}
    benchmarked(workspace, order(folds=["1"], **other))
    with pytest.raises(DataError, match="scores with several sets of parameters"):
        collected(workspace, [Path("parts"), Path("others")], Path("table"), [])
    benchmarked(workspace, order(folds=["1"], seeds=None, seed=[3], out=Path("parts/3")))
    with pytest.raises(DataError, match="not complete; missing: type_2, seed 3"):
        collected(workspace, [Path("parts")], Path("table"), [])


def test_a_region_is_compared_with_its_own_controls(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    result = benchmarked(workspace, order(task="spatial_region", folds=["1"]))
    scores = next(iter(result.summaries.values())).scores[0].per_condition
    assert scores["batch"].str.endswith("(strip 1 of 2)").all()
    assert scores.loc[scores["method"] == "additive", "note"].eq("").all()


def test_of_many_conditions_some_are_predicted_at_a_time(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    asked = order(task="spatial_region", folds=["1"])  # whose batches are renamed on the way
    together = next(iter(benchmarked(workspace, asked).summaries.values())).scores[0]
    shutil.rmtree(workspace / ".cfmvc" / "benchmark" / "scores")
    sizes, seeds, make = list[int](), list[int](), score.predict_held_out

    def noted(*args: Any, conditions: pd.DataFrame, **options: Any) -> Prediction:
        sizes.append(len(conditions))
        seeds.append(args[3].seed)
        return make(*args, conditions=conditions, **options)

    monkeypatch.setattr(score, "_AT_A_TIME", 2)
    monkeypatch.setattr(score, "predict_held_out", noted)
    apart = next(iter(benchmarked(workspace, asked).summaries.values())).scores[0]
    n_conditions = together.per_condition["condition"].nunique()
    assert n_conditions > 2
    assert max(sizes) == 2
    assert seeds == [part for part in range(len(sizes) // 2) for _ in range(2)], "other draws"
    assert sum(sizes) == 2 * n_conditions, "by the flow, and by arithmetic"
    keys = ["method", "condition"]
    assert apart.per_condition[keys].equals(together.per_condition[keys])
    assert apart.per_condition["expectation_error"].notna().sum() == len(
        together.per_condition["expectation_error"].dropna()
    )
    simple = sorted(BASELINES | {"ceiling"})  # whose cells are none of those that are drawn
    of_simple = [one.averages.loc[simple, "energy_distance"] for one in (apart, together)]
    pd.testing.assert_series_equal(*of_simple)


def test_every_task_that_the_data_allow_is_carried_out(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    cells = plain(n_cells=600)
    write_canonical(cells, Path("some.h5ad"))
    listed = {entry["task"]: entry for entry in described(workspace, Path("some.h5ad"), [])}
    asked = order(data=Path("some.h5ad"), task=None, out=Path("out"))
    result = benchmarked(workspace, asked)
    assert set(result.summaries) == {Path("out/held_out_cell_type"), Path("out/held_out_batch")}
    assert set(result.not_allowed) == {
        name for name, entry in listed.items() if "not_allowed" in entry
    }
    assert "no dose" in result.not_allowed["held_out_dose"]


def test_errors_say_what_is_valid(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"no task 'held_out_cel'.*did you mean.*valid are 'held"):
        benchmarked(workspace, order(task="held_out_cel"))
    with pytest.raises(ConfigError, match="no fold '9'; folds: 'type_1', 'type_2'"):
        benchmarked(workspace, order(folds=["9"]))
    with pytest.raises(ConfigError, match="name it with --task"):
        benchmarked(workspace, order(task=None, folds=["1"]))
    with pytest.raises(ConfigError, match="give one of them"):
        benchmarked(workspace, order(seeds=2, seed=[1]))
    with pytest.raises(DataError, match=r"nowhere\.h5ad: no such file"):
        benchmarked(workspace, order(data=Path("nowhere.h5ad")))
    cells = plain(n_cells=600)
    renamed = cells.copy()
    renamed.obs = renamed.obs.rename(columns={"perturbation": "guide"})
    renamed.write_h5ad(workspace / "renamed.h5ad")
    with pytest.raises(DataError, match=r"with --set data\.perturbation=COLUMN"):
        benchmarked(workspace, order(data=workspace / "renamed.h5ad"))
    is_one = (cells.obs["cell_type"] == "type_1") & (cells.obs["batch"] == "batch_1")
    write_canonical(cells[is_one.to_numpy()].copy(), workspace / "one.h5ad")
    alone = order(data=workspace / "one.h5ad", task=None)
    with pytest.raises(DataError, match="the data allow no task\n  held_out_cell_type: no pert"):
        benchmarked(workspace, alone)
    with pytest.raises(DataError, match="task 'held_out_batch': no perturbation is measured in"):
        benchmarked(workspace, order(data=workspace / "one.h5ad", task="held_out_batch"))


def test_a_perturbation_never_seen_is_predicted_by_its_embedding(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    result = benchmarked(workspace, order(task="unseen_perturbation", folds=["P1"]))
    scores = next(iter(result.summaries.values())).scores[0].per_condition
    assert set(scores["perturbation"]) == {"P1", "P1+P2"}
    is_additive = (scores["method"] == "additive") & (scores["perturbation"] == "P1")
    assert set(scores.loc[is_additive, "note"]) == {"'P1' not seen; control"}


def test_results_of_other_cells_of_the_same_name_are_not_mixed_up(workspace: Path) -> None:
    plain(n_cells=300).write_h5ad(workspace / "cells.h5ad")
    fold = workspace / "results/benchmark/cells/held_out_cell_type/folds/01-other-seed-0"
    fold.mkdir(parents=True)
    (fold / "facts.json").write_text('{"data_sha256": "of another file"}')
    words = ["benchmark", "--data", "cells.h5ad", "--task", "held_out_cell_type", "--no-track"]
    process = ForkedModule("cfmvc", words, workspace, os.environ, is_split=True)
    _, wrong = process.communicate(300)
    assert process.returncode == 2
    assert "holds results of other cells that are called 'cells' as well" in wrong


def test_the_command_prints_json_and_tells_what_is_wrong(workspace: Path) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        process = ForkedModule("cfmvc", ["benchmark", *words], workspace, os.environ, is_split=True)
        said, wrong = process.communicate(300)
        assert process.returncode is not None
        return process.returncode, said, wrong

    code, said, wrong = run("--task", "tea")
    assert (code, said) == (2, "")
    assert "no task 'tea'; valid are 'held_out_cell_type', 'held_out_batch'" in wrong
    words = ("--task", "held_out_cell_type", "--seeds", "1", "--workers", "2")
    code, said, wrong = run(*words, "--no-track", "--json")
    assert code == 0, wrong
    found = json.loads(said)["benchmarks"][0]
    assert (found["task"], found["folds"]) == ("held_out_cell_type", ["type_1", "type_2"])
    assert {row["method"] for row in found["table"]} >= BASELINES
    assert not (workspace / ".cfmvc" / "spool").exists()
