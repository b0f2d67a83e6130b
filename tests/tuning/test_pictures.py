"""Pictures say what Optuna knows of a study, and nothing of the wrong end of it."""

import optuna
import pytest
from matplotlib.figure import Figure

from cfmvc.tuning.objectives import Objective, objectives_of
from cfmvc.tuning.pictures import pictures

SAME, DISTANCE = objectives_of(["pearson_delta", "energy_distance"])


def study_of(*objectives: Objective) -> optuna.Study:
    """Return the same trials whatever they are valued by: ``x`` makes the best, ``y`` the worst."""
    study = optuna.create_study(
        directions=[objective.direction for objective in objectives],
        sampler=optuna.samplers.RandomSampler(seed=0),
    )

    def values_of(trial: optuna.Trial) -> list[float]:
        x, y = (trial.suggest_float(name, 0, 1) for name in "xy")
        good = 2.0 + x if x > 0.8 else -y if y > 0.8 else 1.0
        return [good if objective is SAME else 1.0 - good for objective in objectives]

    study.optimize(values_of, n_trials=60)
    return study


def bars(figure: Figure) -> dict[str, float]:
    """Return what a picture of importances shows."""
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(names, [bar.get_width() for bar in axes.patches], strict=True))


@pytest.mark.parametrize("objective", [SAME, DISTANCE])
def test_what_is_important_for_an_objective_is_so_beside_another_one(objective: Objective) -> None:
    alone = pictures(study_of(objective), [objective])["importance.png"]
    both = pictures(study_of(SAME, DISTANCE), [SAME, DISTANCE])
    beside = both[f"importance_{objective.name}.png"]
    assert bars(beside) == pytest.approx(bars(alone))
    assert bars(beside)["x"] > 0.7, "that of the best trials, and not of the worst"
