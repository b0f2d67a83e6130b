"""The table against cellflow-tools, the lines to its worker, and the worker, where it is."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.cellflow.__main__ import main
from benchmarks.cellflow.duel import SHOWN, Duel, with_rival
from benchmarks.cellflow.page import tables
from benchmarks.cellflow.side import PYTHON, RIVAL, Rival, Training, scored, training_cells
from benchmarks.reference.asked import asked
from cfmvc.benchmark.cells import BenchmarkCells
from cfmvc.benchmark.folds import Fold
from cfmvc.benchmark.scores import FoldScores
from cfmvc.benchmark.summary import Summary
from cfmvc.config import default_params_file, read_yaml, section_of
from cfmvc.data.config import SimulateConfig, SplitConfig
from cfmvc.data.simulate import simulate
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.evaluate import evaluate
from cfmvc.evaluation.exam import Exam

PARAMS = read_yaml(default_params_file())
CONFIG = section_of(PARAMS, "evaluate", EvaluateConfig)
FEW = {"n_cells": 900, "n_genes": 40, "n_programmes": 4, "n_combinations": 0, "n_interactive": 0}


def fold_scores(fold: str, seed: int, ours: list[float], theirs: list[float]) -> FoldScores:
    values = {"model": ours, "additive": [0.0] * 4, "ridge": [0.5] * 4, "ceiling": [1.0] * 4}
    averages = pd.DataFrame(values, list(SHOWN)).T.rename_axis("method")
    per_condition = averages.reset_index().assign(condition=fold)
    none = pd.DataFrame(columns=["method", "condition", "draw", *SHOWN])
    facts = {"fold": fold, "seed": seed, "number": ord(fold[0]), "task": "task", "data": "data"}
    scores = FoldScores(averages, per_condition, none, pd.DataFrame(), facts)
    rival = pd.DataFrame([[RIVAL, fold, *theirs]], columns=["method", "condition", *SHOWN])
    return with_rival(scores, rival)


@pytest.fixture
def duel() -> Duel:
    # pearson delta, energy distance, MSE, variance ratio; the first fold has two seeds of 1 and 3
    scores = [
        fold_scores("a", 0, [0.9, 1.0, 0.2, 1.4], [0.8, 1.9, 0.1, 0.7]),
        fold_scores("a", 1, [0.9, 3.0, 0.2, 1.4], [0.8, 2.3, 0.3, 0.7]),
        fold_scores("b", 0, [0.7, 1.0, 0.1, 1.4], [0.8, 1.5, 0.3, 0.5]),
        fold_scores("b", 1, [0.7, 1.0, 0.1, 1.4], [0.8, 1.5, 0.3, 0.5]),
    ]
    return Duel(Summary(scores, CONFIG))


def test_a_fold_is_won_by_the_mean_over_seeds_and_a_variance_ratio_by_its_distance_from_one(
    duel: Duel,
) -> None:
    # a: 2.0 against 2.1; 0.2 against 0.2, which is none; 1.4 is farther from 1 than 0.7 is
    assert duel.won == {
        "energy_distance": ["a", "b"],
        "mse_top50": ["b"],
        "variance_ratio_top50": ["b"],
    }
    assert duel.is_met("energy_distance")
    assert not duel.is_met("mse_top50")


def test_the_tables_show_means_their_seeds_and_who_lost_where(duel: Duel) -> None:
    lines = "\n".join(tables(duel))
    assert "| energy distance ↓ | 2 of 2 folds | met |" in lines
    assert "| mse top50 ↓ | 1 of 2 folds (not: a) | MISSED |" in lines
    # means over the two folds: 1 and 2 with the seeds 0 and 1
    assert "| model | 0.800 (0.800 to 0.800) | 1.500 (1.000 to 2.000) |" in lines
    assert "| cellflow | 0.800 | 2.100 | 0.200 | **0.700** |" in lines
    assert "| model | 0.900 | **2.000** | 0.200 | 1.400 |" in lines


def test_a_condition_that_the_other_side_left_out_is_an_error() -> None:
    scores = fold_scores("a", 0, [0.0] * 4, [0.0] * 4)
    rival = pd.DataFrame([[RIVAL, "b", *[0.0] * 4]], columns=["method", "condition", *SHOWN])
    with pytest.raises(ValueError, match="not those of the model"):
        with_rival(scores, rival)


def simulated() -> tuple[BenchmarkCells, Fold]:
    asked_for = {**PARAMS["simulate"], **FEW}
    cells = simulate(section_of({"simulate": asked_for}, "simulate", SimulateConfig))[0]
    obs = cells.obs.astype({"perturbation": str, "cell_type": str})
    perturbed = obs.loc[obs["perturbation"] != "control", ["perturbation", "cell_type"]]
    perturbation, cell_type = perturbed.value_counts().index[0]
    held_out = (obs["perturbation"] == perturbation) & (obs["cell_type"] == cell_type)
    return BenchmarkCells(cells, "simulated", "here"), Fold("one", "one", held_out.to_numpy())


def test_cells_in_log_space_are_scored_as_the_evaluation_scores_baselines() -> None:
    data, fold = simulated()
    cells, _ = data.split(fold, section_of(PARAMS, "split", SplitConfig))
    exam = Exam.of(cells, CONFIG, "control", "+")
    controls = [exam.reference.controls(condition.stratum) for condition in exam.truth]
    found = scored(exam, controls).set_index("condition")
    table = evaluate(cells, None, CONFIG, "control", "+").per_condition
    known = table[table["method"] == "control"].set_index("condition")
    for metric in SHOWN:
        np.testing.assert_allclose(found[metric], known.loc[found.index, metric], rtol=1e-6)


def test_the_other_side_is_given_what_is_not_held_out_and_nothing_else() -> None:
    data, fold = simulated()
    cells, _ = data.split(fold, section_of(PARAMS, "split", SplitConfig))
    seen = training_cells(Exam.of(cells, CONFIG, "control", "+"))
    assert list(seen.obs_names) == list(cells.obs_names[~fold.is_test])
    assert (seen.obs["is_control"] == (seen.obs["perturbation"] == "control")).all()
    assert np.expm1(seen.X).sum(axis=1).std() < 1e-2  # all cells have the same library


def test_a_worker_is_asked_in_lines_and_its_prints_are_no_answers() -> None:
    with asked(Path(sys.executable), "tests.benchmarks.echo_worker", "echo") as worker:
        assert worker.ask(hello=1) == {"started_with": {"hello": 1}}
        assert worker.ask(number=2.5) == {"answer_to": {"number": 2.5}}
        with pytest.raises(RuntimeError, match="the echo worker ended with 3"):
            worker.ask(end=3)


@pytest.mark.skipif(PYTHON.is_file(), reason="the environment of cellflow-tools is there")
def test_without_its_environment_the_command_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make cellflow-env"):
        main(["--data", str(tmp_path)])


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.is_file(), reason="no cellflow-tools: make cellflow-env")
def test_cellflow_trains_predicts_every_condition_and_is_not_asked_twice(tmp_path: Path) -> None:
    data, fold = simulated()
    training = Training(n_iterations=5, n_components=10, cells_per_step=32, width=16)
    with Rival(data, PARAMS, training, tmp_path).working() as rival:
        found, told = rival.scores(fold, 0)
    assert found["energy_distance"].notna().all()
    assert told["versions"]["cellflow-tools"] == "0.0.9"
    again = Rival(data, PARAMS, training, tmp_path, python=tmp_path / "none").scores(fold, 0)
    pd.testing.assert_frame_equal(again[0], found)
