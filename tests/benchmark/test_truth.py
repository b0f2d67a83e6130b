"""The error against the truth is that of a prediction, and of nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from cfmvc.benchmark.cells import BenchmarkCells
from cfmvc.benchmark.truth import Truth, expectation_errors
from cfmvc.config import default_params_file, read_yaml
from cfmvc.data.config import SimulateConfig, SplitConfig
from cfmvc.evaluation.conditions import Stratum
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.exam import Exam
from tests.benchmark.conftest import folds, simulated

SPLIT = SplitConfig(kind="auto", held_out=None, test_fraction=0.2, val_fraction=0.1, seed=0)


def test_more_cells_bring_the_real_ones_nearer_to_the_truth(params: dict[str, Any]) -> None:
    config = EvaluateConfig(**params["evaluate"])
    errors = []
    for n_cells in (1000, 8000):
        cells = simulated(doses=[], spatial=False, n_cells=n_cells)
        fold = folds(cells, "held_out_combination")[0]
        real, _ = BenchmarkCells(cells, "cells", "").split(fold, SPLIT)
        truth = Truth.of(cells, fold)
        assert truth is not None
        oracle = real[fold.is_test].copy()
        oracle.layers["mean"] = csr_matrix(oracle.layers["counts"]).toarray()
        exam = Exam.of(real, config, "control", "+")
        found = expectation_errors(truth, exam, {"oracle": oracle}, "", exam.asked)
        assert found["expectation_error_additive"].isna().all(), "the only pair is interactive"
        errors.append(found.groupby("method")["expectation_error"].mean())
    assert errors[1]["oracle"] < 0.6 * errors[0]["oracle"]
    assert errors[1]["oracle"] < 0.5 * errors[1]["control"]


def test_a_region_has_a_truth_of_its_own() -> None:
    cells = simulated(doses=[])
    truths = [Truth.of(cells, fold) for fold in folds(cells, "spatial_region")]
    condition = next(iter(truths[0]._rows))  # type: ignore[union-attr]
    logs = [truth._rows[condition][0] for truth in truths if truth is not None]
    assert not np.allclose(logs[0], logs[-1])


def test_other_cells_have_no_known_truth(tmp_path: Path) -> None:
    cells = simulated()
    fold = folds(cells, "held_out_cell_type")[0]
    assert Truth.of(cells[:, :20].copy(), fold) is None
    assert Truth.of(cells[:, ::-1].copy(), fold) is None, "of other genes in each column"
    truth = Truth.of(cells, fold)
    assert truth is not None
    known = next(iter(truth._rows))
    assert truth.knows(known)
    assert not truth.knows(known._replace(stratum=Stratum("merged", "types")))
    cells.uns["cfmvc"]["simulate"] = '{"n_cells": 1500}'
    assert Truth.of(cells, fold) is None, "of another version"
    del cells.uns["cfmvc"]["simulate"]
    assert Truth.of(cells, fold) is None


@pytest.mark.parametrize("label", ["P1", "P1+P2"])
def test_the_control_shifts_nothing_and_a_response_does(label: str) -> None:
    cells = simulated(doses=[], spatial=False)
    truth = Truth.of(cells, folds(cells, "held_out_cell_type")[0])
    assert truth is not None
    conditions = [key for key in truth._rows if key.treatment.perturbation == label]
    assert all(np.abs(truth.shift(condition)).max() > 0.1 for condition in conditions)
    assert {truth.kind(condition) for condition in conditions} == {
        "interactive" if "+" in label else ""
    }


def test_what_the_parts_do_is_all_of_a_combination_but_its_interaction() -> None:
    def of_parts(n_interactive: int) -> float:
        cells = simulated(
            doses=[], spatial=False, n_combinations=1, n_interactive=n_interactive, n_genes=500
        )
        truth = Truth.of(cells, folds(cells, "held_out_cell_type")[0])
        assert truth is not None
        pair = next(key for key in truth._rows if "+" in key.treatment.perturbation)
        return float(np.sqrt(np.mean((truth.shift_of_parts(pair) - truth.shift(pair)) ** 2)))

    config = SimulateConfig(**read_yaml(default_params_file())["simulate"])
    drawn = config.interaction_effect * config.perturbed_fraction**0.5
    assert of_parts(0) < 0.2 * drawn
    assert of_parts(1) == pytest.approx(drawn, rel=0.4)
