"""The bars of the report: model, best baseline and ceiling of each condition, on one scale."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from cfmvc.evaluation.figures import colour_of
from cfmvc.evaluation.metrics import METRICS
from cfmvc.evaluation.report_tables import digits, text_of
from cfmvc.evaluation.result import CEILING, MODEL, Evaluation
from cfmvc.evaluation.table import best_baseline


@dataclass(frozen=True)
class Bar:
    """A score as a bar from 0; positions are percent of the width.

    Parameters
    ----------
    whisker
        Where the score would lie with other cells; None where no other cells were drawn.
    words
        Score and interval, for those who do not see the bar.
    """

    method: str
    colour: str
    text: str
    left: float
    width: float
    whisker: tuple[float, float] | None
    words: str


@dataclass(frozen=True)
class Bars:
    """One condition in one metric."""

    bars: list[Bar]
    ceiling: float | None
    ceiling_text: str


@dataclass(frozen=True)
class Track:
    """A metric's scale and its bars, a condition each.

    Parameters
    ----------
    ticks
        Position in percent, and label.
    by_condition
        In the order in which the conditions were given.
    """

    metric: str
    ticks: list[tuple[float, str]]
    by_condition: dict[str, Bars]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def at(self, value: float) -> float:
        return round(100.0 * (value - self.low) / (self.high - self.low), 2)


def tracks(evaluation: Evaluation, conditions: list[str], metrics: list[str]) -> list[Track]:
    """Return the bars of the metrics, for the conditions in the order given."""
    return [_track(evaluation, conditions, metric) for metric in metrics]


def _track(evaluation: Evaluation, conditions: list[str], metric: str) -> Track:
    scores = evaluation.with_bounds(metric)
    chosen = {}
    for condition in conditions:
        values = scores["value"].xs(condition, level="condition")
        chosen[condition] = [
            name
            for name in (MODEL, best_baseline(values, metric, evaluation))
            if name is not None and np.isfinite(values.get(name, np.nan))
        ]
    keys = [(name, condition) for condition, names in chosen.items() for name in names]
    ceilings = scores.loc[[(CEILING, condition) for condition in conditions], "value"]
    drawn = scores.loc[keys].to_numpy().ravel()
    scale, ticks = _scale(np.concatenate([drawn, ceilings]), METRICS[metric].better == "one")
    n_digits = digits(scores.loc[keys, "value"])
    found = {}
    for condition, names in chosen.items():
        bars = [_bar(name, scores.loc[(name, condition)], scale, n_digits) for name in names]
        ceiling = float(ceilings[(CEILING, condition)])
        known = np.isfinite(ceiling)
        found[condition] = Bars(
            bars, scale.at(ceiling) if known else None, text_of(ceiling, n_digits)
        )
    return Track(metric, [(scale.at(tick), f"{tick:g}") for tick in ticks], found)


def _scale(values: np.ndarray, with_one: bool) -> tuple[_Scale, list[float]]:
    """Return a scale with 0 on it, and round numbers along it."""
    finite = np.append(values[np.isfinite(values)], [0.0, 1.0] if with_one else [0.0])
    low, high = float(finite.min()), float(finite.max())
    scale = _Scale(low, high if high > low else low + 1.0)
    ticks = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(scale.low, scale.high)
    # adding 0 takes the sign off a negative zero
    ticks = [round(float(tick), 10) + 0.0 for tick in ticks]
    return scale, [tick for tick in ticks if scale.low <= tick <= scale.high]


def _bar(method: str, score: pd.Series, scale: _Scale, n_digits: int) -> Bar:
    value, low, high = (float(number) for number in score)
    ends = sorted([scale.at(0.0), scale.at(value)])
    words = text_of(value, n_digits)
    whisker = None
    if np.isfinite(low):
        whisker = scale.at(low), scale.at(high)
        words += f", {text_of(low, n_digits)} to {text_of(high, n_digits)} with other cells"
    return Bar(
        method,
        colour_of(method),
        text_of(value, n_digits),
        ends[0],
        round(ends[1] - ends[0], 2),
        whisker,
        words,
    )
