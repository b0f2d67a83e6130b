"""How sure a mean over folds is: other folds, other conditions in them, other cells in these."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cfmvc.benchmark.scores import FoldScores
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.intervals import Scores, interval
from cfmvc.evaluation.randomness import random_generator


@dataclass(frozen=True)
class FoldMeans:
    """The scores of a fold, means over seeds.

    Parameters
    ----------
    name
        Of the fold.
    values
        Index ``(method, condition)``; columns: metrics.
    draws
        Likewise with other cells, index ``(method, condition, draw)``.
    """

    name: str
    values: pd.DataFrame
    draws: pd.DataFrame

    @classmethod
    def of(cls, scores: Sequence[FoldScores]) -> "FoldMeans":
        """Average over the seeds of a fold."""
        values = pd.concat([one.per_condition for one in scores])
        draws = pd.concat([one.draws for one in scores])
        keys = ["method", "condition"]
        return cls(
            scores[0].fold,
            values.groupby(keys).mean(numeric_only=True),
            draws.groupby([*keys, "draw"]).mean(numeric_only=True),
        )

    def scores(self, method: str, metric: str) -> Scores | None:
        """Return a method's scores by condition; None where the metric is not defined."""
        if metric not in self.values:
            return None
        mine = self.values.loc[method][metric].dropna()
        if mine.empty:
            return None
        drawn = np.zeros((len(mine), 0))
        if metric in self.draws and method in self.draws.index.get_level_values("method"):
            drawn = self.draws.loc[method][metric].unstack("draw").reindex(mine.index).to_numpy()
        return Scores(mine.to_numpy(np.float64), drawn)


def interval_over_folds(
    folds: Sequence[FoldMeans], method: str, metric: str, config: EvaluateConfig
) -> tuple[float, float]:
    """Return the bounds between which a mean over folds would lie.

    Folds are drawn with replacement, conditions within each of them, and cells within these: the
    same ones for every method. With few folds an interval says little about folds.
    """
    found = {fold.name: scores for fold in folds if (scores := fold.scores(method, metric))}
    n, n_folds = config.n_bootstrap, len(found)
    if not n_folds:
        return float("nan"), float("nan")
    means = np.empty((n_folds, n_folds, n))  # a fold drawn twice has other conditions each time
    for number, (name, scores) in enumerate(found.items()):
        rng = random_generator(config.seed, "conditions", metric, name)
        # of a single fold it is all about conditions; of several, folds differ by these as well
        some = scores.means(n_folds * n, rng, stretched=n_folds == 1)
        means[number] = some.reshape(n_folds, n)
    rng = random_generator(config.seed, "folds", metric)
    drawn = rng.integers(n_folds, size=(n_folds, n))
    chosen = means[drawn, np.arange(n_folds)[:, None], np.arange(n)]
    return interval(chosen.mean(axis=0), config.confidence)
