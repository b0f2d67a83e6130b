"""Folds and seeds put together: means, the spread over seeds, and intervals over conditions."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from cfmvc.benchmark.scores import FoldScores
from cfmvc.benchmark.spread import FoldMeans, interval_over_folds
from cfmvc.benchmark.truth import ERRORS
from cfmvc.errors import DataError
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.metrics import METRICS
from cfmvc.evaluation.result import CEILING, MODEL


@dataclass(frozen=True)
class Summary:
    """Every method over the folds and seeds of a benchmark.

    Parameters
    ----------
    scores
        One a fold and seed, each fold with the same seeds.
    config
        The section ``evaluate``: how intervals are made.

    Raises
    ------
    DataError
        If a fold lacks a seed that another one has: no fold is left out of a mean.
    """

    scores: list[FoldScores]
    config: EvaluateConfig

    def __post_init__(self) -> None:
        there = {(one.fold, one.seed) for one in self.scores}
        missing = [
            f"{fold}, seed {seed}"
            for fold in self.folds
            for seed in self.seeds
            if (fold, seed) not in there
        ]
        if missing:
            raise DataError(f"the benchmark is not complete; missing: {'; '.join(missing)}")

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.scores[0].facts["task"])

    @property
    def data(self) -> str:
        """Name of the data."""
        return str(self.scores[0].facts["data"])

    @cached_property
    def folds(self) -> list[str]:
        """Names of the folds, in the task's order."""
        numbers = {one.fold: int(one.facts["number"]) for one in self.scores}
        return sorted(numbers, key=lambda name: numbers[name])

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds of the trainings."""
        return sorted({one.seed for one in self.scores})

    @cached_property
    def methods(self) -> list[str]:
        """The model first, the ceiling last."""
        return list(self.scores[0].averages.index)

    @property
    def baselines(self) -> list[str]:
        """What the model is compared with, without the ceiling."""
        return [name for name in self.methods if name not in (MODEL, CEILING)]

    @cached_property
    def metrics(self) -> list[str]:
        """Metrics that are defined for some fold, those against the simulation's truth last."""
        known = {name for one in self.scores for name in one.averages.columns}
        return [name for name in (*METRICS, *ERRORS) if name in known]

    @cached_property
    def n_conditions(self) -> int:
        """Scored conditions of all folds."""
        first = [one for one in self.scores if one.seed == self.seeds[0]]
        return sum(int(one.per_condition["condition"].nunique()) for one in first)

    @cached_property
    def all(self) -> pd.DataFrame:
        """Averages of each fold and seed, index ``(fold, seed, method)``."""
        parts = {(one.fold, one.seed): one.averages for one in self.scores}
        table = pd.concat(parts, names=["fold", "seed", "method"])
        return table.reindex(columns=self.metrics)

    @cached_property
    def by_fold(self) -> pd.DataFrame:
        """Means over seeds, index ``(fold, method)`` in their order."""
        means = self.all.groupby(["fold", "method"]).mean()
        return means.reindex(pd.MultiIndex.from_product([self.folds, self.methods]))

    @cached_property
    def by_seed(self) -> pd.DataFrame:
        """Means over folds, index ``(seed, method)``."""
        return self.all.groupby(["seed", "method"]).mean()

    @cached_property
    def means(self) -> pd.DataFrame:
        """Means over conditions, then folds, then seeds; index: methods."""
        return self.by_seed.groupby("method").mean().reindex(self.methods)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a method and metric: ``mean``, ``min`` and ``max`` over seeds, ``low, high``.

        The last two are bounds of the mean with other folds, conditions and cells.
        """
        spread = self.by_seed.groupby("method")
        least, most = spread.min(), spread.max()
        folds = [FoldMeans.of([one for one in self.scores if one.fold == f]) for f in self.folds]
        rows = []
        for method in self.methods:
            for metric in self.means.columns[self.means.loc[method].notna()]:
                low, high = interval_over_folds(folds, method, str(metric), self.config)
                rows.append(
                    {
                        "method": method,
                        "metric": metric,
                        "mean": self.means.loc[method, metric],
                        "min": least.loc[method, metric],
                        "max": most.loc[method, metric],
                        "low": low,
                        "high": high,
                        "n_folds": len(self.folds),
                        "n_seeds": len(self.seeds),
                        "n_conditions": self.n_conditions,
                    }
                )
        return pd.DataFrame(rows)
