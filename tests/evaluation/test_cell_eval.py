"""Our metrics against those of `cell-eval`, on the same cells, through `benchmarks.cell_eval`."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("cell_eval", reason="cell-eval is not installed: pip install '.[cell-eval]'")

from benchmarks.cell_eval.rows import exact_rows, usual_rows
from benchmarks.cell_eval.sides import Sides, hold_out, sides_of
from benchmarks.cell_eval.theirs import RANKS, theirs
from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data.config import SimulateConfig
from cfmvc.data.simulate import simulate
from cfmvc.evaluation import METRICS
from cfmvc.evaluation.conditions import Stratum
from cfmvc.evaluation.evaluate import evaluate
from tests.evaluation.conftest import CONFIG, assemble, population

CELLS_OF = {"control": 51, "A": 9, "B": 13, "C": 20, "D": 33, "E": 47, "F": 60}


def noise() -> ad.AnnData:
    """Weak random effects, unequal numbers of cells, an odd number of genes, one called as A."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 5, 41)
    parts = []
    for label, n_cells in CELLS_OF.items():
        means = base * np.exp(rng.normal(0, 0.15, len(base)))
        if label == "A":
            means[0] = 0.1
        for batch in ("b1", "b2"):
            obs = {"perturbation": label, "batch": batch, "cell_type": "T"}
            parts.append(population(rng, n_cells, means * (1.0 if batch == "b1" else 1.1), **obs))
    cells = assemble(parts)
    cells.var_names = ["A", *cells.var_names[1:]]
    return hold_out(cells, Stratum("b2", "T"), "control")


def simulated() -> ad.AnnData:
    small = {"n_cells": 900, "n_genes": 150, "n_batches": 2, "n_cell_types": 1}
    weak = {"perturbation_effect": 0.5, "interaction_effect": 0.5, "specific_effect": 0.1}
    values = read_yaml(default_params_file())["simulate"] | small | weak
    cells, _ = simulate(parse_section(SimulateConfig, values, "simulate"))
    return hold_out(cells, Stratum("batch_1", "type_1"), "control")


@pytest.fixture(scope="module", params=[noise, simulated], ids=["random", "simulated"])
def cells(request: pytest.FixtureRequest) -> ad.AnnData:
    found: ad.AnnData = request.param()
    return found


@pytest.fixture(scope="module")
def sides(cells: ad.AnnData) -> Sides:
    return sides_of(cells, CONFIG, "control")


def test_what_is_compared_is_what_evaluate_scores(cells: ad.AnnData, sides: Sides) -> None:
    table = evaluate(cells, None, CONFIG.model_copy(update={"n_draws": 0}), "control", "+")
    scored = table.per_condition.query("method == 'perturbed_mean'").set_index("perturbation")
    assert len(scored) == len(sides.cases) >= 6
    ours = pd.DataFrame({name: sides.ours(name) for name in METRICS})
    pd.testing.assert_frame_equal(ours, scored[list(METRICS)], check_names=False)


def test_metrics_that_define_the_same_are_equal(sides: Sides) -> None:
    rows = exact_rows(sides)
    assert len(rows) == 11
    for row in rows:
        assert row.is_same
        assert row.their_values.notna().all()
        assert row.our_values.notna().sum() >= 6, row.ours
        assert row.our_values.std() > 0, f"{row.ours}: nothing to tell apart"
        assert row.largest_difference < 1e-6, f"{row.ours}, {row.theirs}"


def test_their_scores_leave_out_the_gene_that_is_called_as_the_perturbation() -> None:
    """Gene A falls to nothing under perturbation A, and its fall tells A from the others."""
    sides = sides_of(noise(), CONFIG, "control")
    whole, without = (
        theirs(sides, [RANKS["l1"]], drop_target=drop)[RANKS["l1"]] for drop in (False, True)
    )
    assert sides.ours("discrimination")["A"] == pytest.approx(1 - (1 - whole["A"]) * 6 / 5)
    assert without["A"] < whole["A"]
    assert without.drop("A").equals(whole.drop("A"))


@pytest.mark.slow  # numba compiles
def test_metrics_as_they_come_differ_where_the_docs_say_so(sides: Sides) -> None:
    direction, *others = usual_rows(sides)
    assert direction.is_same
    assert direction.largest_difference < 1e-6
    assert not any(row.is_same for row in others)
    assert all(row.largest_difference > 1e-3 for row in others)
