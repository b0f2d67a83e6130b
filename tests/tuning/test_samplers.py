"""A contract that every sampler of the table keeps: a study that goes on is the same study."""

from pathlib import Path

import optuna
import pytest

from cfmvc.errors import ConfigError
from cfmvc.tuning.samplers import PRUNERS, SAMPLERS, SeededByTrial, pruner_of

N_TRIALS = 9


def value_of(trial: optuna.Trial) -> float:
    x, y = trial.suggest_float("x", -2, 2), trial.suggest_float("y", 1e-3, 1.0, log=True)
    n = trial.suggest_categorical("n", [1, 2, 4])
    return (x - 1) ** 2 + y + 0.1 * float(n)


def study_of(uri: str, sampler: str, seed: int) -> optuna.Study:
    return optuna.create_study(
        storage=uri, study_name="s", sampler=SeededByTrial(sampler, seed, 3), load_if_exists=True
    )


def drawn(study: optuna.Study) -> list[dict[str, object]]:
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_that_was_stopped_draws_what_it_would_have_drawn(
    sampler: str, tmp_path: Path
) -> None:
    whole = study_of(f"sqlite:///{tmp_path / 'whole.db'}", sampler, seed=1)
    whole.optimize(value_of, n_trials=N_TRIALS)
    for n_more in (4, 3, N_TRIALS - 7):
        stopped = study_of(f"sqlite:///{tmp_path / 'stopped.db'}", sampler, seed=1)
        stopped.optimize(value_of, n_trials=n_more)
    assert drawn(stopped) == drawn(whole)
    other = study_of(f"sqlite:///{tmp_path / 'other.db'}", sampler, seed=2)
    other.optimize(value_of, n_trials=N_TRIALS)
    assert drawn(other) != drawn(whole)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_for_several_objectives_a_sampler_draws_or_is_refused(sampler: str) -> None:
    try:
        inner = SeededByTrial(sampler, 1, 3, n_objectives=2)
    except ConfigError:
        inner = SeededByTrial(sampler, 1, 3)
        with pytest.raises(ValueError, match="multi-objective"):
            of_two(inner)
    else:
        of_two(inner)


def of_two(sampler: SeededByTrial) -> None:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    study.optimize(lambda trial: (value_of(trial), float(trial.number)), n_trials=5)


def test_parameters_of_a_first_trial_are_not_drawn_alike() -> None:
    study = optuna.create_study(sampler=SeededByTrial("tpe", 0, 3))
    trial = study.ask()
    pair = [trial.suggest_float(name, 0.0, 1.0) for name in "ab"]
    assert pair[0] != pair[1]


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_ends_what_is_far_behind_and_nothing_else(name: str) -> None:
    # the name of a study decides which of Hyperband's brackets a trial is in
    study = optuna.create_study(study_name="s", pruner=pruner_of(name, 3, n_looks=2))

    def course(level: float) -> optuna.trial.TrialState:
        def trial_of(trial: optuna.Trial) -> float:
            for look in range(1, 5):
                trial.report(level, look)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return level

        study.optimize(trial_of, n_trials=1)
        return study.trials[-1].state

    for level in (1.0, 1.1, 1.2, 1.3):
        course(level)
    complete = optuna.trial.TrialState.COMPLETE
    assert course(0.5) == complete, "the best of all"
    worst = [course(100.0 + n) for n in range(4)]
    assert (complete in worst) == (name == "none") or name in ("halving", "hyperband")
    assert name == "none" or optuna.trial.TrialState.PRUNED in worst
