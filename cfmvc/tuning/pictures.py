"""Pictures of a study, drawn by Optuna with matplotlib."""

import warnings
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import optuna
from matplotlib.figure import Figure
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from cfmvc.tuning.objectives import Objective
from cfmvc.tuning.search import finished

_LEAST_FOR_IMPORTANCE = 4  # complete trials; of fewer, the best ones beside all say nothing
_WIDTH, _HEIGHT = 9.0, 5.0  # inches
_AXIS_WIDTH = 1.3  # of each parallel axis, so that their labels do not meet


def pictures(study: Study, objectives: list[Objective]) -> dict[str, Figure]:
    """Return figures by file name; those that the study is too small for are left out.

    ``history`` (values by trial), ``importance`` (PED-ANOVA: what tells the best tenth of the
    trials from all), ``parallel_coordinate`` (values and parameters),
    ``intermediate_values`` (looks by trial), and with several objectives ``pareto_front``.
    """
    drawn: dict[str, Figure] = {}
    n_complete = len(finished(study, TrialState.COMPLETE))
    if n_complete == 0:
        return drawn
    draw = optuna.visualization.matplotlib
    for number, objective in enumerate(objectives):
        of = _value_of(number) if len(objectives) > 1 else None
        end = f"_{objective.name}" if len(objectives) > 1 else ""
        named: dict[str, Any] = {"target": of, "target_name": objective.label}
        drawn[f"history{end}.png"] = _drawn(draw.plot_optimization_history, study, **named)
        if n_complete > 1:
            n_axes = 1 + len({name for trial in finished(study) for name in trial.params})
            drawn[f"parallel_coordinate{end}.png"] = _drawn(
                draw.plot_parallel_coordinate, study, max(_WIDTH, n_axes * _AXIS_WIDTH), **named
            )
        if n_complete >= _LEAST_FOR_IMPORTANCE and _vary(study):
            # Of a target of ours PED-ANOVA takes for granted that less is better; otherwise it asks
            # the study.
            sign = -1.0 if objective.direction == "maximize" else 1.0
            loss = {**named, "target": of and _value_of(number, sign)}
            drawn[f"importance{end}.png"] = _drawn(draw.plot_param_importances, study, **loss)
    if len(objectives) in (2, 3):
        names = [objective.label for objective in objectives]
        drawn["pareto_front.png"] = _drawn(draw.plot_pareto_front, study, target_names=names)
    if any(trial.intermediate_values for trial in study.get_trials(deepcopy=False)):
        looks = _drawn(draw.plot_intermediate_values, study)
        looks.axes[0].set(xlabel="look", ylabel=objectives[0].label, title="Looks at each trial")
        if (legend := looks.axes[0].get_legend()) is not None:
            legend.remove()  # one line a trial would be higher than the picture
        looks.tight_layout()
        drawn["intermediate_values.png"] = looks
    return drawn


def _value_of(number: int, sign: float = 1.0) -> Callable[[FrozenTrial], float]:
    return lambda trial: sign * float(trial.values[number])


def _vary(study: Study) -> bool:
    """Return whether any parameter that all complete trials have takes two values."""
    trials = finished(study, TrialState.COMPLETE)
    common = set.intersection(*(set(trial.params) for trial in trials))
    return any(len({trial.params[name] for trial in trials}) > 1 for name in common)


def _drawn(draw: Callable[..., Any], study: Study, width: float = _WIDTH, **named: Any) -> Figure:
    # Optuna says at every call that it is experimental, and sets a style for the whole process.
    with warnings.catch_warnings(), plt.rc_context():
        warnings.simplefilter("ignore")
        axes = draw(study, **named)
    first = axes if hasattr(axes, "figure") else axes.flat[0]
    figure: Figure = first.figure
    figure.set_size_inches(width, _HEIGHT)
    figure.tight_layout()
    plt.close(figure)
    return figure
