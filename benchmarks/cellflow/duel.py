"""Both sides put together: who is nearer, metric by metric and fold by fold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from benchmarks.cellflow.side import RIVAL
from cfmvc.benchmark.scores import FoldScores
from cfmvc.benchmark.summary import Summary
from cfmvc.evaluation.metrics import METRICS
from cfmvc.evaluation.result import CEILING, MODEL

METHODS = (MODEL, RIVAL, "ridge", "additive", CEILING)
JUDGED = ("energy_distance", "mse_top50", "variance_ratio_top50")
SHOWN = ("pearson_delta", *JUDGED)
_SHARE = 0.8  # of the folds in which the model has to be better: 4 of 5


def with_rival(scores: FoldScores, rival: pd.DataFrame) -> FoldScores:
    """Return a fold's scores with another method among them.

    Parameters
    ----------
    scores
        Of the model, the baselines and the ceiling.
    rival
        One row a condition: ``method, condition`` and the metrics.

    Raises
    ------
    ValueError
        If it did not answer the same conditions as the model.
    """
    mine = scores.per_condition
    asked = mine.loc[mine["method"] == MODEL, "condition"]
    if set(asked) != set(rival["condition"]):
        raise ValueError(f"conditions of {RIVAL} in {scores.fold}: not those of the model")
    means = rival.drop(columns="condition").groupby("method").mean()
    means = means[[name for name in scores.averages.columns if name in means]]
    return replace(
        scores,
        averages=pd.concat([scores.averages, means]).rename_axis("method"),
        per_condition=pd.concat([mine, rival], ignore_index=True),
    )


@dataclass(frozen=True)
class Duel:
    """The model against CellFlow.

    Parameters
    ----------
    summary
        Folds and seeds, CellFlow among the methods of each.
    """

    summary: Summary

    @cached_property
    def by_fold(self) -> pd.DataFrame:
        """Means over conditions, then seeds: index ``(fold, method)``, columns :data:`SHOWN`."""
        table = self.summary.by_fold[list(SHOWN)]
        return table[table.index.get_level_values(1).isin(METHODS)]

    @cached_property
    def means(self) -> pd.DataFrame:
        """Means over the folds too; index: :data:`METHODS`."""
        return self.summary.means.loc[list(METHODS), list(SHOWN)]

    @cached_property
    def extremes(self) -> Mapping[str, tuple[pd.Series, pd.Series]]:
        """Smallest and largest mean over folds of a seed, of the two that are trained."""
        by_seed = self.summary.by_seed[list(SHOWN)]
        found = {name: by_seed.xs(name, level="method") for name in (MODEL, RIVAL)}
        return {name: (table.min(), table.max()) for name, table in found.items()}

    @cached_property
    def won(self) -> dict[str, list[str]]:
        """By judged metric, the folds in which the model is better; a tie is none."""
        return {
            metric: [fold for fold in self.summary.folds if self.leader(fold, metric) == MODEL]
            for metric in JUDGED
        }

    def is_met(self, metric: str) -> bool:
        """Return whether the model is better in at least 4 of 5 folds."""
        return len(self.won[metric]) >= _SHARE * len(self.summary.folds)

    def leader(self, fold: str, metric: str) -> str:
        """Return whose mean of a fold is better; empty if neither's is."""
        loss = METRICS[metric].loss
        ours, theirs = (
            loss(float(self.by_fold.loc[(fold, name), metric])) for name in (MODEL, RIVAL)
        )
        return "" if ours == theirs else MODEL if ours < theirs else RIVAL
