"""The ``tune`` section of ``params.yaml``."""

import math
from typing import Annotated, Any

from pydantic import Field, model_validator

from cfmvc.config import Section

Value = bool | int | float | str
Conditions = Annotated[
    dict[str, list[Value]] | None,
    Field(description="searched only where other parameters have one of these values"),
]


class Range(Section):
    """Numbers between two bounds, both included; whole ones if both bounds are."""

    low: int | float
    high: int | float
    log: bool = Field(default=False, description="spread evenly over the orders of magnitude")
    when: Conditions = None

    @model_validator(mode="after")
    def _in_order(self) -> "Range":
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"low ({self.low}) and high ({self.high}) must be finite")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"with log, low ({self.low}) must be above 0")
        return self


class Choice(Section):
    """One of several values."""

    choices: list[Value] = Field(min_length=1)
    when: Conditions = None


class TuneConfig(Section):
    """What is searched, for what, and how long."""

    study: str | None = Field(
        description="name of the study; null: one for each set of data, space and parameters"
    )
    storage: str | None = Field(
        description="address of the study's database; null: an SQLite file in the project's folder"
    )
    n_trials: int = Field(ge=1, description="trials of the study in all, also of one gone on with")
    timeout: float | None = Field(gt=0, description="seconds after which no trial is begun")
    objectives: list[str] = Field(
        min_length=1, description="metrics of the evaluation, or costs; several: a Pareto front"
    )
    validation_fraction: float = Field(
        gt=0, lt=1, description="of the training conditions, held out to score trials on"
    )
    n_cells: int = Field(
        ge=2, description="virtual cells of each validation condition, at least (whole rounds)"
    )
    n_looks: int = Field(ge=0, description="looks at a stage on its way, which may prune the trial")
    sampler: str
    pruner: str
    n_startup_trials: int = Field(
        ge=1, description="trials before the sampler models anything and before any is pruned"
    )
    heartbeat_seconds: float = Field(
        gt=0, description="between a worker's signs of life; after three missed ones it is dead"
    )
    max_failures_in_a_row: int = Field(ge=1, description="trials that fail before the study stops")
    seed: int = Field(ge=0)
    warm_start: list[dict[str, Any]] = Field(
        description="trials to begin with, after the present parameters"
    )
    space: dict[str, Range | Choice] = Field(min_length=1)
