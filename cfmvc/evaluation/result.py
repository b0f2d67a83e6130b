"""The result of an evaluation."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.intervals import Scores, interval
from cfmvc.evaluation.randomness import random_generator

Array = NDArray[np.float64]
MODEL = "model"
CEILING = "ceiling"


@dataclass(frozen=True)
class View:
    """What a picture of one predicted condition shows."""

    true_delta: Array
    predicted_delta: Array
    top: NDArray[np.int64]
    control_pcs: Array
    true_pcs: Array
    predicted_pcs: Array


@dataclass(frozen=True)
class Evaluation:
    """What :func:`cfmvc.evaluation.evaluate.evaluate` has found.

    Parameters
    ----------
    per_condition
        One row a method and condition: ``method, condition, perturbation, batch, cell_type``
        (``dose`` where the data have it), the metrics, ``n_true``, ``n_predicted``,
        ``difficulty``, ``note``. A metric is NaN where it is not defined, e.g. ``discrimination``
        in a stratum with one held-out perturbation.
    averages
        Index: methods, the model first and the ceiling last. Columns: the metrics that are
        defined for every method; means over the conditions in which they are. NaN for the ceiling
        where it alone lacks one.
    chance
        What a prediction that knows nothing gets, by metric.
    skipped
        ``condition, n_true, reason`` of test conditions that could not be scored for any method.
    views
        Of the model's predictions, by the name of the condition.
    draws
        The metrics with other cells, one row a method, condition and ``draw``.
    config
        How it was made; the intervals follow from it.
    """

    per_condition: pd.DataFrame
    averages: pd.DataFrame
    chance: pd.Series
    skipped: pd.DataFrame
    views: dict[str, View] = field(repr=False)
    draws: pd.DataFrame = field(repr=False)
    config: EvaluateConfig

    @property
    def n_conditions(self) -> int:
        """Number of conditions that were scored."""
        return int(self.per_condition["condition"].nunique())

    @cached_property
    def intervals(self) -> pd.DataFrame:
        """Where the averages would lie with other conditions and other cells.

        Columns ``low`` and ``high``, index ``(method, metric)``.
        """
        config, rows = self.config, {}
        for method in self.averages.index:
            for metric in self.averages.columns:
                rng = random_generator(config.seed, "conditions", metric)
                means = self.scores(method, metric).defined().means(config.n_bootstrap, rng)
                rows[method, metric] = interval(means, config.confidence)
        index = pd.MultiIndex.from_tuples(rows, names=["method", "metric"])
        return pd.DataFrame(list(rows.values()), index, columns=["low", "high"])

    @property
    def baselines(self) -> list[str]:
        """Names of what the model is compared with, without the ceiling."""
        return [name for name in self.averages.index if name not in (MODEL, CEILING)]

    def scores(self, method: str, metric: str) -> Scores:
        """Return a method's scores in all conditions, in the order of their names."""
        table = self.per_condition[self.per_condition["method"] == method]
        values = table.set_index("condition")[metric].sort_index()
        drawn = self.draws[self.draws["method"] == method]
        wide = drawn.pivot(index="condition", columns="draw", values=metric)
        wide = wide.reindex(values.index)
        return Scores(values.to_numpy(np.float64), wide.to_numpy(np.float64))

    def with_bounds(self, metric: str) -> pd.DataFrame:
        """Return a metric's ``value, low, high`` by method and condition.

        The bounds are those that other cells of the condition would give.
        """
        parts = {}
        for method in self.averages.index:
            scores = self.scores(method, metric)
            low, high = scores.bounds(self.config.confidence)
            names = sorted(
                self.per_condition.loc[self.per_condition["method"] == method, "condition"]
            )
            columns = {"value": scores.values, "low": low, "high": high}
            parts[method] = pd.DataFrame(columns, index=pd.Index(names, name="condition"))
        return pd.concat(parts, names=["method"])
