"""What comes out of a study: a table of its trials, and the best parameters as a file."""

import io
from collections.abc import Mapping
from typing import Any

import pandas as pd
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from ruamel.yaml import YAML

from cfmvc.tuning.files import FIRST_COLUMNS, NOTHING
from cfmvc.tuning.search import RETRY_OF, SHAPING, Search, best_trials, finished
from cfmvc.tuning.space import Values
from cfmvc.tuning.worker import CLAIM, FACTS, REASON, VAE_TRAINED

_HEADER = """\
# Written by `cfmvc tune`; `cfmvc tune apply` puts `params` into params.yaml.
"""


def trials_table(study: Study, search: Search) -> pd.DataFrame:
    """Return one row a trial that has ended: values, parameters, every metric, and its run."""
    front = {trial.number for trial in best_trials(study)}
    names = [objective.label for objective in search.objectives]
    rows = []
    for trial in finished(study):
        values = dict(zip(names, trial.values or (), strict=False))
        seconds = None if trial.duration is None else trial.duration.total_seconds()
        facts, claim = trial.user_attrs.get(FACTS, {}), trial.user_attrs.get(CLAIM, {})
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state.name,
                "seconds": seconds,
                "best": trial.number in front,
                **values,
                **{name: trial.params.get(name) for name in search.space.entries},
                **{f"validation.{name}": value for name, value in facts.get("figures", {}).items()},
                "vae": facts.get("vae"),
                "vae_trained": bool(trial.user_attrs.get(VAE_TRAINED)),
                "retry_of": trial.system_attrs.get(RETRY_OF),
                "run_uid": claim.get("run_uid"),
                "reason": trial.user_attrs.get(REASON) or _reason_of_the_dead(trial),
            }
        )
    return pd.DataFrame(rows, columns=None if rows else [*FIRST_COLUMNS, "best", *names])


def best_as_dict(
    study: Study, search: Search, front: list[FrozenTrial], written: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return what ``best_params.yaml`` says of the best trials; None if no trial is complete.

    Parameters
    ----------
    study, search
        The study and its plan.
    front
        Its best trials, the first of which is told of.
    written
        What ``params.yaml`` says: the plan may have other values, by ``--set``.
    """
    if not front:
        return None
    best = front[0]
    first = present_trial(study)
    said: dict[str, Any] = {"study": study.study_name, "trial": best.number}
    said["objectives"] = {
        objective.label: {
            "validation": best.values[n],
            "present_parameters": None if first is None else first.values[n],
        }
        for n, objective in enumerate(search.objectives)
    }
    if len(front) > 1:
        said["pareto_front"] = [trial.number for trial in front]
    if beside := _set_beside(search, written, best.params):
        said["found_with"] = _in_sections(beside)
    return {**said, "params": _in_sections(best.params)}


def _set_beside(search: Search, written: Mapping[str, Any], chosen: Values) -> Values:
    """Return what shaped a trial, was not chosen by it, and stands otherwise in ``params.yaml``."""
    return {
        name: value
        for section in SHAPING
        for key, value in search.params[section].items()
        if (name := f"{section}.{key}") not in chosen and value != written.get(section, {}).get(key)
    }


def _in_sections(values: Values) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    return sections


def present_trial(study: Study) -> FrozenTrial | None:
    """Return the complete trial of the present parameters: the first one, or its repetition."""
    for trial in finished(study, TrialState.COMPLETE):
        if 0 in (trial.number, trial.system_attrs.get(RETRY_OF)):
            return trial
    return None


def best_text(said: dict[str, Any] | None) -> str:
    """Return the text of ``best_params.yaml``."""
    if said is None:
        return NOTHING
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(said, stream)
    return _HEADER + stream.getvalue()


def _reason_of_the_dead(trial: FrozenTrial) -> str:
    return "its worker died" if trial.state == TrialState.FAIL else ""
