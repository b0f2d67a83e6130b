"""What a study is about: its parameters, checked, and the study in its database."""

import copy
import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from cfmvc.config import section_of
from cfmvc.errors import ConfigError
from cfmvc.evaluation.metrics import METRICS
from cfmvc.stages.checkpointing import code_hash
from cfmvc.tracking.database_lock import one_at_a_time
from cfmvc.tuning.config import TuneConfig
from cfmvc.tuning.objectives import Objective, objectives_of
from cfmvc.tuning.samplers import SeededByTrial, pruner_of
from cfmvc.tuning.space import SECTIONS, Space, Values
from cfmvc.tuning.storage import key_of, open_storage
from cfmvc.tuning.trainer import expect_sections
from cfmvc.tuning.validation import TuningCells

FINGERPRINT, PARENT, PARENT_BEGUN = "cfmvc.fingerprint", "cfmvc.parent_uid", "cfmvc.parent_begun"
RETRY_OF, QUEUED = "failed_trial", "fixed_params"  # Optuna's own names for them
# What shapes a trial's value beside the searched parameters; the machine's share is not part of it.
# Rooms of the package in which values are made.
_ROOMS = ("data", "evaluation", "flow", "models", "stages", "training")
SHAPING = (*SECTIONS, "generate", "evaluate")


@dataclass(frozen=True)
class Search:
    """A study's plan.

    Parameters
    ----------
    config
        The ``tune`` section.
    params
        All parameters; a trial changes some of them.
    space
        Which, and between what.
    objectives
        What for.
    """

    config: TuneConfig
    params: dict[str, Any]
    space: Space
    objectives: list[Objective]

    @classmethod
    def of(cls, params: dict[str, Any]) -> "Search":
        """Check the section ``tune`` against all the others.

        Raises
        ------
        ConfigError
            With every name that is valid, if one is not; if a section that trials read has faults.
        """
        config = section_of(params, "tune", TuneConfig)
        search = cls(config, params, Space.of(config, params), objectives_of(config.objectives))
        expect_sections(params)
        search.sampler()  # an unknown one is an error now, and not after the data are read
        pruner_of(config.pruner, config.n_startup_trials, config.n_looks)
        return search

    @property
    def is_pruned(self) -> bool:
        """Whether trials can be ended early: of several objectives, or a cost, none can say so."""
        is_single = len(self.objectives) == 1 and self.objectives[0].name in METRICS
        return is_single and self.config.n_looks > 0 and self.config.pruner != "none"

    def sampler(self) -> SeededByTrial:
        """Return the study's sampler."""
        config = self.config
        n_objectives = len(self.objectives)
        return SeededByTrial(config.sampler, config.seed, config.n_startup_trials, n_objectives)

    def fingerprint(self, data: TuningCells) -> str:
        """Hash what trials must have in common to be compared."""
        values = {
            "data": data.data_md5,
            "split": data.split_sha256,
            "params": {name: self.params.get(name) for name in SHAPING},
            "space": self.space.as_json(),
            "objectives": [objective.name for objective in self.objectives],
            "n_cells": self.config.n_cells,
            "n_looks": self.config.n_looks if self.is_pruned else None,
            "seed": self.config.seed,
            "precision": self.params["compute"]["precision"],
            "code": code_hash(_ROOMS),
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()

    def name(self, data: TuningCells) -> str:
        """Return the study's name."""
        return self.config.study or f"tune-{self.fingerprint(data)[:8]}"

    def open(self, uri: str, name: str, fingerprint: str) -> Study:
        """Open the study, or make it with its first trials waiting.

        Raises
        ------
        ConfigError
            If a study of that name is about something else, or another tool's.
        TrackingError
            If the database cannot be reached.
        """
        storage = open_storage(uri, self.config.heartbeat_seconds, retry_once)
        with one_at_a_time(uri, key_of(name)):
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                sampler=self.sampler(),
                pruner=self._pruner(),
                directions=[objective.direction for objective in self.objectives],
                load_if_exists=True,
            )
            known = study.user_attrs.get(FINGERPRINT)
            if known is None:
                self._begin(study, fingerprint)
            elif known != fingerprint:
                raise ConfigError(
                    f"study '{name}': was begun with other data, parameters, space, objectives or "
                    "code, and its values cannot be compared; give this one another --study"
                )
        return study

    def _begin(self, study: Study, fingerprint: str) -> None:
        """Queue the first trials; the fingerprint comes last, and says that they are there.

        Where one was killed meanwhile, some of them are; whatever else is there is not ours.
        """
        first = self._first()
        trials = study.get_trials(deepcopy=False)
        directions = [direction.name.lower() for direction in study.directions]
        queued = [trial.system_attrs.get(QUEUED) for trial in trials]
        is_ours = (
            directions == [objective.direction for objective in self.objectives]
            and all(trial.state == TrialState.WAITING for trial in trials)
            and queued == first[: len(queued)]
        )
        if not is_ours:
            raise ConfigError(
                f"study '{study.study_name}': is there already, with trials or a direction that "
                "`cfmvc tune` with this plan has not given it; give this one another --study"
            )
        for values in first[len(queued) : self.config.n_trials]:
            study.enqueue_trial(values)
        study.set_user_attr(PARENT, uuid.uuid4().hex)
        study.set_user_attr(FINGERPRINT, fingerprint)

    def _first(self) -> list[Values]:
        """Return the first trials: of the present values and of warm starts, each point once."""
        first = list[Values]()
        for values in ({}, *self.config.warm_start):
            if (whole := self.space.warm(values)) not in first:
                first.append(whole)
        return first

    def _pruner(self) -> optuna.pruners.BasePruner:
        name = self.config.pruner if self.is_pruned else "none"
        return pruner_of(name, self.config.n_startup_trials, self.config.n_looks)


def retry_once(study: Study, trial: FrozenTrial) -> None:
    """Queue the trial of a dead worker once more, with the same parameters."""
    _retry(study, trial, most=1)


def retry(study: Study, trial: FrozenTrial) -> None:
    """Queue a trial that somebody has interrupted."""
    _retry(study, trial, most=None)


def _retry(study: Study, trial: FrozenTrial, most: int | None) -> None:
    trial = copy.deepcopy(trial)
    trial.user_attrs = {}  # of the worker that is gone
    optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=most)(study, trial)


def is_retry(trial: FrozenTrial) -> bool:
    """Return whether a trial repeats one whose worker died."""
    return RETRY_OF in trial.system_attrs


def finished(study: Study, *states: TrialState) -> list[FrozenTrial]:
    """Return the trials in some states; without any, all that have ended."""
    wanted = states or (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return study.get_trials(deepcopy=False, states=wanted)


def best_trials(study: Study) -> list[FrozenTrial]:
    """Return the best trial, or the Pareto front by its first objective; none may be complete."""
    if not finished(study, TrialState.COMPLETE):
        return []
    if len(study.directions) == 1:
        return [study.best_trial]
    sign = 1 if study.directions[0].name == "MINIMIZE" else -1
    return sorted(study.best_trials, key=lambda trial: (sign * trial.values[0], trial.number))
