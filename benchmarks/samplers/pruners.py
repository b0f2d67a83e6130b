"""The courses of real trials, replayed in many orders through every pruner."""

from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd

from benchmarks.samplers.trials import SECONDS, VALUE, looks_of, seconds_at
from cfmvc.tuning.samplers import PRUNERS

# What `tune` offers, and what it would offer if the first look at a VAE could prune.
CANDIDATES = {
    **PRUNERS,
    "median, from the first look": lambda n, n_looks: optuna.pruners.MedianPruner(
        n_startup_trials=n, n_min_trials=3
    ),
    "quarter, from the first look": lambda n, n_looks: optuna.pruners.PercentilePruner(
        75.0, n_startup_trials=n, n_min_trials=4
    ),
}


@dataclass(frozen=True)
class Replay:
    """A study that has met the trials of a table in its order.

    Parameters
    ----------
    spent
        Seconds up to the end of each trial.
    best
        Best value of the trials that were not ended, up to there.
    """

    spent: np.ndarray
    best: np.ndarray


def replay(table: pd.DataFrame, pruner: str, n_startup: int, n_looks: int) -> Replay:
    """Show a pruner trial after trial, look after look."""
    # Hyperband draws a trial's bracket from the study's name and the trial's number.
    study = optuna.create_study(study_name="s", pruner=CANDIDATES[pruner](n_startup, n_looks))
    spent, best = [], []
    for row in table.to_dict("records"):
        seconds, value = _one(study, row, looks_of(table))
        spent.append(seconds)
        best.append(value)
    return Replay(np.cumsum(spent), np.fmin.accumulate(best))


def _one(study: optuna.Study, row: dict[object, float], looks: list[str]) -> tuple[float, float]:
    """Return the seconds that a trial took, and its value; infinite if it was ended."""
    trial = study.ask()
    for number, look in enumerate(looks, start=1):
        if np.isnan(row[look]):
            continue  # its training had stopped by itself
        trial.report(row[look], number)
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return row[seconds_at(look)], np.inf
    study.tell(trial, row[VALUE])
    return row[SECONDS], row[VALUE]


def compare(
    table: pd.DataFrame, n_orders: int, n_trials: int, n_startup: int, n_looks: int
) -> pd.DataFrame:
    """Return one row a pruner: what it saves, what it loses, and what comes out at equal cost.

    Parameters
    ----------
    table
        Real trials; those without a value are left out.
    n_orders
        Random orders.
    n_trials
        Of a study.
    n_startup, n_looks
        As the section ``tune`` says.
    """
    known = table[np.isfinite(table[VALUE])]
    orders = [known.sample(frac=1, random_state=seed) for seed in range(n_orders)]
    whole = [replay(order, "none", n_startup, n_looks) for order in orders]
    rows = {}
    for name in CANDIDATES:
        found = [replay(order, name, n_startup, n_looks) for order in orders]
        pairs = list(zip(found, whole, strict=True))
        last = n_trials - 1
        saved = np.array([1 - f.spent[last] / w.spent[last] for f, w in pairs])
        worse = np.array([f.best[last] / w.best[last] - 1 for f, w in pairs])
        equal = np.array([_best_within(f, w.spent[last]) / w.best[last] - 1 for f, w in pairs])
        rows[name] = {
            "compute saved": f"{saved.mean():.0%}",
            "best trial lost": f"{np.mean(worse > 0):.0%}",
            "best value worse by": f"{worse.mean():.1%}",
            "at equal compute worse by": f"{equal.mean():.1%}",
        }
    return pd.DataFrame(rows).T.rename_axis("pruner")


def foresight(table: pd.DataFrame) -> str:
    """Return the rank correlation of each look with the value in the end."""
    found = [table[look].corr(table[VALUE], method="spearman") for look in looks_of(table)]
    return ", ".join(f"{value:.2f}" for value in found)


def _best_within(found: Replay, seconds: float) -> float:
    """Return the best value when so much is spent; trials may be ended that others were not."""
    return float(found.best[max(np.searchsorted(found.spent, seconds, side="right") - 1, 0)])
