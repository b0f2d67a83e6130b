"""What is asked of all benchmarks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """How often everything is measured."""

    n_rounds: int
