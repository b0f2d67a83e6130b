"""Measured combinations and doses tell of others, and cost nothing where parts add."""

import numpy as np
import pytest

from benchmarks.held_out_shifts import squares
from benchmarks.not_additive import (
    COMBINATIONS,
    DOSES,
    combinations_held_out,
    doses_held_out,
    drawn,
    of_combinations,
    of_doses,
)


@pytest.mark.parametrize(("kind", "most"), [("additive", 1.1), ("limited", 0.6), ("company", 0.4)])
def test_of_measured_combinations_others_are_told(kind: str, most: float) -> None:
    sizes = {"n_combinations": 20, "n_interactive": 20, "n_cells": 6000} | COMBINATIONS[kind]
    folds = combinations_held_out(drawn(0, **sizes))
    sums = sum((squares(fold, of_combinations) for fold in folds), np.zeros(3))
    assert sums[0] < most * sums[1]


@pytest.mark.parametrize(("kind", "most"), [("concentrations", 0.3), ("in proportion", 1.1)])
def test_of_measured_doses_others_are_told(kind: str, most: float) -> None:
    sizes = {"n_combinations": 0, "n_interactive": 0, "n_cells": 6000} | DOSES[kind]
    sums = sum((squares(f, of_doses) for f in doses_held_out(drawn(0, **sizes), 2)), np.zeros(3))
    assert sums[0] < most * sums[1]
