"""The tables of samplers and pruners; to add one, add a line."""

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from cfmvc.errors import ConfigError, listed, suggest

_MakeSampler = Callable[[int, int], BaseSampler]

# What each needs to be installed, beside Optuna.
_NEEDED = {"cmaes": "cmaes"}
_OF_ONE_OBJECTIVE = {"cmaes"}

SAMPLERS: dict[str, _MakeSampler] = {
    "tpe": lambda seed, n: optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=n, multivariate=True, group=True, constant_liar=True
    ),
    "tpe_univariate": lambda seed, n: optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=n, multivariate=False, constant_liar=True
    ),
    "gp": lambda seed, n: optuna.samplers.GPSampler(
        seed=seed, n_startup_trials=n, warn_independent_sampling=False
    ),
    "cmaes": lambda seed, n: optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=n),
    "random": lambda seed, n: optuna.samplers.RandomSampler(seed=seed),
}

# What the first look at a VAE says has next to nothing to do with the trial's value
# (`python -m benchmarks.samplers`: rank correlation 0.1 to 0.2).
_FIRST_LOOK = 2

PRUNERS: dict[str, Callable[[int, int], BasePruner]] = {
    "none": lambda n, n_looks: optuna.pruners.NopPruner(),
    "median": lambda n, n_looks: optuna.pruners.MedianPruner(
        n_startup_trials=n, n_warmup_steps=_FIRST_LOOK, n_min_trials=3
    ),
    "quarter": lambda n, n_looks: optuna.pruners.PercentilePruner(
        75.0, n_startup_trials=n, n_warmup_steps=_FIRST_LOOK, n_min_trials=4
    ),
    "halving": lambda n, n_looks: optuna.pruners.SuccessiveHalvingPruner(reduction_factor=2),
    "hyperband": lambda n, n_looks: optuna.pruners.HyperbandPruner(
        min_resource=1, max_resource=max(2 * n_looks, 1), reduction_factor=2
    ),
}


class SeededByTrial(BaseSampler):
    """A sampler that is seeded anew for each trial, by the study's seed and the trial's number.

    A study that was killed and goes on then draws what it would have drawn otherwise.

    Parameters
    ----------
    name
        A key of :data:`SAMPLERS`.
    seed
        Of the study.
    n_startup_trials
        Trials before anything is modelled.
    n_objectives
        Of the study.

    Raises
    ------
    ConfigError
        If there is no such sampler, it does not do so many objectives, or what it needs is not
        installed.
    """

    def __init__(self, name: str, seed: int, n_startup_trials: int, n_objectives: int = 1) -> None:
        if name not in SAMPLERS:
            raise ConfigError(
                f"tune.sampler: no sampler '{name}'{suggest(name, SAMPLERS)}; "
                f"valid are {listed(SAMPLERS)}"
            )
        if n_objectives > 1 and name in _OF_ONE_OBJECTIVE:
            others = listed(other for other in SAMPLERS if other not in _OF_ONE_OBJECTIVE)
            raise ConfigError(
                f"tune.sampler: '{name}' looks for one objective, and tune.objectives has "
                f"{n_objectives}; take another sampler ({others})"
            )
        package = _NEEDED.get(name)
        if package is not None and find_spec(package) is None:
            raise ConfigError(f"tune.sampler: '{name}' needs a package: pip install {package}")
        self._make, self._seed, self._n_startup = SAMPLERS[name], seed, n_startup_trials
        self._number, self._inner = -1, self._made(seed)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Ask the sampler of this trial."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask the sampler of this trial."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Ask the sampler of this trial."""
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell the sampler of this trial, some of which keep what they have learnt in the study."""
        self._of(trial).after_trial(study, trial, state, values)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number != self._number:
            seed = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]
            self._number, self._inner = trial.number, self._made(int(seed))
        return self._inner

    def _made(self, seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return self._make(seed, self._n_startup)


def pruner_of(name: str, n_startup_trials: int, n_looks: int) -> BasePruner:
    """Return the pruner of a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in PRUNERS:
        raise ConfigError(
            f"tune.pruner: no pruner '{name}'{suggest(name, PRUNERS)}; valid are {listed(PRUNERS)}"
        )
    return PRUNERS[name](n_startup_trials, n_looks)
