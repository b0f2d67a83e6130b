"""Studies of every sampler on a surrogate: the same seeds, noise and first trial for all."""

import time
from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd
from scipy.stats import wilcoxon

from benchmarks.samplers.surrogate import Surrogate
from cfmvc.tuning.samplers import SAMPLERS, SeededByTrial

SLOW = ("gp",)  # a study takes it a minute


@dataclass(frozen=True)
class Studies:
    """What the studies of one sampler have come to, by seed.

    Parameters
    ----------
    seen
        Best value, noise in it.
    true
        That trial's value without noise.
    seconds
        That the sampler itself took for a study.
    """

    seen: np.ndarray
    true: np.ndarray
    seconds: np.ndarray


def studies(
    surrogate: Surrogate, sampler: str, n_seeds: int, n_trials: int, n_startup: int
) -> Studies:
    """Carry out a study for each seed, each begun with the present parameters as ``tune`` does."""
    found = [_study(surrogate, sampler, seed, n_trials, n_startup) for seed in range(n_seeds)]
    return Studies(*(np.array(column) for column in zip(*found, strict=True)))


def _study(
    surrogate: Surrogate, sampler: str, seed: int, n_trials: int, n_startup: int
) -> tuple[float, float, float]:
    study = optuna.create_study(sampler=SeededByTrial(sampler, seed, n_startup))
    study.enqueue_trial(surrogate.space.warm({}))
    best, seconds = (np.inf, np.inf), 0.0
    for draw in np.random.default_rng(seed).random(n_trials):
        started = time.perf_counter()
        trial = study.ask()
        values = surrogate.space.suggest(trial)
        seconds += time.perf_counter() - started
        true = surrogate(values)
        seen = surrogate.with_noise(true, float(draw))
        best = min(best, (seen, true))
        study.tell(trial, seen)
    return *best, seconds


def compare(
    surrogate: Surrogate, n_seeds: int, n_slow: int, n_trials: int, n_startup: int
) -> pd.DataFrame:
    """Return the table of all samplers, the slow ones with fewer seeds."""
    by_sampler = {}
    for name in SAMPLERS:
        seeds = min(n_slow, n_seeds) if name in SLOW else n_seeds
        by_sampler[name] = studies(surrogate, name, seeds, n_trials, n_startup)
    return table_of(by_sampler)


def table_of(by_sampler: dict[str, Studies]) -> pd.DataFrame:
    """Return one row a sampler: medians and quartiles, and how often it is better than others."""
    random, tpe = by_sampler["random"], by_sampler["tpe"]
    rows = {}
    for name, found in by_sampler.items():
        rows[name] = {
            "seeds": len(found.seen),
            "best value seen": _spread(found.seen),
            "seen: beats random": _share(found.seen, random.seen),
            "without noise": _spread(found.true),
            "beats random": _share(found.true, random.true),
            "p": _p(found.true, random.true),
            "beats tpe": _share(found.true, tpe.true),
            "p ": _p(found.true, tpe.true),
            "own seconds": f"{np.median(found.seconds):.1f}",
        }
    return pd.DataFrame(rows).T.rename_axis("sampler")


def _spread(values: np.ndarray) -> str:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.3f} ({low:.3f} - {high:.3f})"


def _share(values: np.ndarray, base: np.ndarray) -> str:
    """Return the share of seeds that are better; those that are equal count by half."""
    base = base[: len(values)]
    if (values == base).all():
        return ""
    return f"{np.mean(values < base) + np.mean(values == base) / 2:.0%}"


def _p(values: np.ndarray, base: np.ndarray) -> str:
    base = base[: len(values)]
    return "" if (values == base).all() else f"{wilcoxon(values, base).pvalue:.2g}"
