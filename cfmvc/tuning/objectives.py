"""What a study looks for: metrics of the evaluation, and costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cfmvc.errors import ConfigError, listed, suggest
from cfmvc.evaluation.metrics import METRICS

# Both are what the trial's trainings took; memory is the estimate made before they begin, which is
# the same on a busy machine and on an idle one.
COSTS = {
    "train_seconds": "seconds of training of both stages; a VAE that was there counts as trained",
    "peak_memory_gib": "expected peak of the larger stage",
}


@dataclass(frozen=True)
class Objective:
    """One thing to be made better.

    Parameters
    ----------
    name
        A metric, or a cost.
    direction
        Of the value that Optuna is told.
    """

    name: str
    direction: Literal["minimize", "maximize"]

    @property
    def label(self) -> str:
        """What the value is called: of a metric whose best is 1, the distance from it."""
        is_distance = self.name in METRICS and METRICS[self.name].better == "one"
        return f"|{self.name} - 1|" if is_distance else self.name

    def value(self, figures: Mapping[str, float]) -> float:
        """Return the value among a trial's figures; NaN where the metric is not defined."""
        figure = figures.get(self.name, float("nan"))
        if self.name in METRICS and METRICS[self.name].better == "one":
            return METRICS[self.name].loss(figure)
        return figure

    def is_better(self, value: float, other: float) -> bool:
        """Return whether a value is better than another."""
        return value < other if self.direction == "minimize" else value > other


def objectives_of(names: Sequence[str]) -> list[Objective]:
    """Return objectives with the directions of the metric table.

    Raises
    ------
    ConfigError
        If a name is none of a metric or a cost, or comes twice.
    """
    known = [*METRICS, *COSTS]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"tune.objectives: no metric '{name}'{suggest(name, known)}; "
                f"valid are {listed(known, most=len(known))}"
            )
    if len(set(names)) < len(names):
        raise ConfigError(f"tune.objectives: {listed(names)}: each may come once")
    return [Objective(name, _direction(name)) for name in names]


def _direction(name: str) -> Literal["minimize", "maximize"]:
    is_more_better = name in METRICS and METRICS[name].better == "higher"
    return "maximize" if is_more_better else "minimize"
