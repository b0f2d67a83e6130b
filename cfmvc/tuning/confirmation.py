"""The best parameters and the present ones, trained in full and compared on the test conditions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from cfmvc.tracking.tracker import NullTracker, Tracker
from cfmvc.tuning.objectives import Objective
from cfmvc.tuning.space import Values, merged
from cfmvc.tuning.trainer import Trainer

Verdict = Literal["confirmed", "the same", "not confirmed", "not defined"]


@dataclass(frozen=True)
class Confirmation:
    """An objective of the test conditions, which no trial has seen.

    Parameters
    ----------
    objective
        Which one.
    present, best
        Its value with the present parameters, and with the study's best.
    """

    objective: Objective
    present: float
    best: float

    @property
    def is_better(self) -> bool:
        """Whether the test says what the validation has said."""
        return self.objective.is_better(self.best, self.present)

    @property
    def verdict(self) -> Verdict:
        """What the test says of the best parameters."""
        if not math.isfinite(self.best) or not math.isfinite(self.present):
            return "not defined"
        if self.is_better:
            return "confirmed"
        return "the same" if self.best == self.present else "not confirmed"

    def as_json(self) -> dict[str, Any]:
        """Return plain values; None for what is not defined."""
        return {
            "best": _defined(self.best),
            "present_parameters": _defined(self.present),
            "verdict": self.verdict,
        }


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def confirm(
    trainer: Trainer,
    params: dict[str, Any],
    best: Values,
    objectives: list[Objective],
    tracker: Tracker,
    say: Callable[[str], None],
    step: int = 0,
) -> list[Confirmation]:
    """Train with both sets of parameters on all cells outside the test, and score both on it.

    Parameters
    ----------
    trainer
        Of the pipeline's own split.
    params, best
        The present parameters, and what the best trial changes in them.
    objectives
        What is compared.
    tracker
        Of the study's run.
    say
        Told what is being done.
    step
        Trials so far: a study that goes on may find a better one, and its figures come after.
    """
    figures = dict[str, dict[str, float]]()
    plans = {"present": params, "best": merged(params, best)}
    for name, plan in plans.items():
        if plan == params and figures:
            figures[name] = figures["present"]
        else:
            say(f"test: training with the {name} parameters on all cells outside the test")
            figures[name] = trainer.run(plan, NullTracker()).figures
        tracker.log_metrics({f"test/{name}/{k}": v for k, v in figures[name].items()}, step)
    return [
        Confirmation(objective, *(objective.value(figures[name]) for name in ("present", "best")))
        for objective in objectives
    ]
