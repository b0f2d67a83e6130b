"""Means over conditions, then folds, then seeds; and what an interval around them covers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from cfmvc.benchmark.report import to_markdown
from cfmvc.benchmark.scores import FoldScores
from cfmvc.benchmark.spread import FoldMeans, interval_over_folds
from cfmvc.benchmark.summary import Summary
from cfmvc.benchmark.text import notes
from cfmvc.errors import DataError
from tests.evaluation.conftest import CONFIG

_ENERGY = ("model", "energy_distance")


def scores_of(fold: str, seed: int, values: dict[str, list[float]]) -> FoldScores:
    """Energy distances by method, one a condition."""
    rows = [
        {"method": method, "condition": f"{fold} {n}", "energy_distance": value}
        for method, some in values.items()
        for n, value in enumerate(some)
    ]
    table = pd.DataFrame(rows)
    averages = table.groupby("method", sort=False)[["energy_distance"]].mean()
    draws = pd.DataFrame(columns=["method", "condition", "draw", "energy_distance"])
    facts = {"task": "t", "data": "d", "fold": fold, "number": int(fold), "seed": seed}
    skipped = pd.DataFrame(columns=["condition", "n_true", "reason"])
    return FoldScores(averages, table, draws, skipped, facts)


def test_folds_weigh_the_same_however_many_conditions_they_have() -> None:
    model = {(1, 0): [1.0, 3.0], (2, 0): [6.0], (1, 1): [2.0, 4.0], (2, 1): [9.0]}
    scores = [
        scores_of(str(fold), seed, {"model": some, "control": [10.0] * len(some)})
        for (fold, seed), some in model.items()
    ]
    summary = Summary(scores, CONFIG)
    row = summary.table.set_index(["method", "metric"]).loc[("model", "energy_distance")]
    assert row[["mean", "min", "max"]].tolist() == [5.0, 4.0, 6.0]
    assert row[["n_folds", "n_seeds", "n_conditions"]].tolist() == [2, 2, 3]
    assert summary.by_fold.loc[("2", "model"), "energy_distance"] == 7.5
    with pytest.raises(DataError, match="missing: 2, seed 1"):
        Summary(scores[:-1], CONFIG)


def test_the_interval_of_a_single_fold_is_about_its_conditions() -> None:
    """Of four conditions as wide as Student's t; of folds they are but a part."""
    values = [1.0, 2.0, 4.0, 5.0]
    config = CONFIG.model_copy(update={"n_bootstrap": 20_000, "confidence": 0.9})
    fold = FoldMeans.of([scores_of("1", 0, {"model": values})])
    low, high = interval_over_folds([fold], "model", "energy_distance", config)
    error = np.std(values, ddof=1) / 2.0
    np.testing.assert_allclose([low, high], 3.0 + t(3).ppf([0.05, 0.95]) * error, atol=0.35)
    low, high = interval_over_folds([fold, replace(fold, name="2")], *_ENERGY, config)
    assert high - low < error * np.ptp(t(3).ppf([0.05, 0.95])) / 1.5


def test_an_interval_covers_the_mean_of_folds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    config = CONFIG.model_copy(update={"n_bootstrap": 500, "confidence": 0.9})
    n_covered = 0
    for _ in range(100):
        folds = []
        for fold in range(12):
            mean = rng.normal()
            some = list(mean + 0.3 * rng.normal(size=4))
            folds.append(FoldMeans.of([scores_of(str(fold), 0, {"model": some})]))
        low, high = interval_over_folds(folds, "model", "energy_distance", config)
        n_covered += low < 0.0 < high
    assert 78 <= n_covered <= 97


def test_of_many_conditions_that_were_not_scored_some_are_named() -> None:
    skipped = [
        {"condition": f"P{n} (b, T)", "n_true": 3, "reason": "3 real cells"} for n in range(300)
    ]
    one = scores_of("1", 0, {"model": [0.1], "control": [0.2]})
    one = replace(one, skipped=pd.DataFrame(skipped))
    told = notes(Summary([one], CONFIG))
    assert told[0] == "not scored: 1: P0 (b, T): 3 real cells"
    assert told[5:] == ["not scored: 1: 295 more (skipped.csv of the fold)"]


def test_a_label_with_a_bar_keeps_the_table_whole() -> None:
    methods = {"model": [1.0], "additive": [2.0], "ridge": [2.0], "ceiling": [0.0]}
    one = scores_of("1", 0, methods)
    one.facts["fold"] = "T|B"
    lines = to_markdown(Summary([one], CONFIG)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {3}
    assert "| model | **1.000** (1.000 to 1.000) |" in lines
