"""The tables of the report: numbers as text, and which of them stand out."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cfmvc.evaluation.difficulty import DIFFICULTIES
from cfmvc.evaluation.metrics import METRICS
from cfmvc.evaluation.result import CEILING, MODEL, Evaluation
from cfmvc.evaluation.table import best_baseline, is_best, number


@dataclass(frozen=True)
class Score:
    """One number of one method; an empty text where it is not defined."""

    method: str
    text: str
    interval: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class AverageRow:
    """A metric's averages: the methods, the ceiling apart, and what knowing nothing gives."""

    metric: str
    methods: list[Score]
    ceiling: Score | None
    chance: str


@dataclass(frozen=True)
class HardnessRow:
    """Conditions that are alike in difficulty, and who does how well there, metric by metric."""

    kind: str
    n_conditions: int
    scores: dict[str, list[Score]]


@dataclass(frozen=True)
class ConditionRow:
    """What one method reaches in one condition."""

    condition: str
    method: str
    difficulty: str
    n_true: int
    n_predicted: int
    scores: list[str]
    note: str


def digits(values: Iterable[float]) -> int:
    """Return how many digits after the point show a metric's values: small ones need more."""
    finite = np.abs([value for value in values if np.isfinite(value)])
    largest = float(finite.max(initial=0.0))
    if largest == 0.0 or largest >= 0.1:
        return 3
    return 4 if largest >= 0.01 else 5


def text_of(value: float, n_digits: int) -> str:
    """Return a score as text, empty where it is not defined."""
    return number(value, n_digits) if np.isfinite(value) else ""


def lead(evaluation: Evaluation) -> str:
    """Return whom the page is about: the model, or without one the nearest of the baselines."""
    if MODEL in evaluation.averages.index:
        return MODEL
    return str(evaluation.averages.loc[evaluation.baselines, "energy_distance"].idxmin())


def worst_first(evaluation: Evaluation) -> list[str]:
    """Return the conditions by falling energy distance of who leads."""
    table = evaluation.per_condition
    mine = table[table["method"] == lead(evaluation)]
    ranked = mine.sort_values(["energy_distance", "condition"], ascending=[False, True])
    return [str(name) for name in ranked["condition"]]


def averages(evaluation: Evaluation) -> list[AverageRow]:
    """Return a row a metric, with intervals, the best methods marked."""
    best = is_best(evaluation.averages)
    rows = []
    for metric, column in evaluation.averages.items():
        name = str(metric)
        n_digits = digits(column)
        scores = []
        for method, value in column.items():
            low, high = (number(end, n_digits) for end in evaluation.intervals.loc[(method, name)])
            bounds = f"{low} to {high}" if low else ""
            is_ahead = bool(best.loc[method, name])
            scores.append(Score(str(method), text_of(value, n_digits), bounds, is_ahead))
        ceiling = next((score for score in scores if score.method == CEILING), None)
        methods = [score for score in scores if score.method != CEILING]
        rows.append(AverageRow(name, methods, ceiling, text_of(evaluation.chance[name], n_digits)))
    return rows


def hardness(evaluation: Evaluation, metrics: list[str]) -> list[HardnessRow]:
    """Return a row a kind of condition that there is: the model, the best baseline, the ceiling."""
    table = evaluation.per_condition
    rows = []
    for kind in DIFFICULTIES:
        some = table[table["difficulty"] == kind]
        if some.empty:
            continue
        means = some.groupby("method")[metrics].mean()
        scores = {metric: _trio(means[metric], metric, evaluation) for metric in metrics}
        rows.append(HardnessRow(kind, int(some["condition"].nunique()), scores))
    return rows


def every_score(evaluation: Evaluation, conditions: list[str]) -> list[ConditionRow]:
    """Return a row a condition and method, in the order of the conditions given."""
    metrics = list(evaluation.averages.columns)
    table = evaluation.per_condition
    shown = {metric: digits(table[metric]) for metric in metrics}
    place = {name: rank for rank, name in enumerate(conditions)}
    ordered = table.iloc[table["condition"].map(place).argsort(kind="stable")]
    return [
        ConditionRow(
            str(row["condition"]),
            str(row["method"]),
            str(row["difficulty"]),
            int(row["n_true"]),
            int(row["n_predicted"]),
            [text_of(row[metric], shown[metric]) for metric in metrics],
            str(row["note"]),
        )
        for row in ordered.to_dict("records")
    ]


def _trio(means: pd.Series, metric: str, evaluation: Evaluation) -> list[Score]:
    rival = best_baseline(means, metric, evaluation)
    chosen = [name for name in (MODEL, rival, CEILING) if name is not None and name in means.index]
    n_digits = digits(means[chosen])
    losses = {name: METRICS[metric].loss(means[name]) for name in chosen if name != CEILING}
    least = min((loss for loss in losses.values() if np.isfinite(loss)), default=None)
    return [
        Score(name, text_of(means[name], n_digits), is_best=losses.get(name, np.nan) == least)
        for name in chosen
    ]
