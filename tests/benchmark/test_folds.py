"""What is held out is held out: no cell of it is among those that train or validate."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import ttest_ind

from cfmvc.benchmark.cells import BenchmarkCells, cells_of, with_obs
from cfmvc.benchmark.config import BenchmarkConfig
from cfmvc.benchmark.folds import Fold, NotAllowed
from cfmvc.benchmark.knock_outs import clearest_knock_outs
from cfmvc.benchmark.tasks import TASKS, chosen, folds_of
from cfmvc.config import default_params_file, read_yaml
from cfmvc.data.config import SplitConfig
from cfmvc.data.normalise import log_normalise, median_library
from cfmvc.errors import ConfigError
from tests.benchmark.conftest import folds, plain, simulated

SPLIT = SplitConfig(kind="auto", held_out=None, test_fraction=0.2, val_fraction=0.1, seed=0)


@pytest.fixture(scope="module")
def cells() -> AnnData:
    return simulated()


def split_of(cells: AnnData, fold: Fold) -> pd.DataFrame:
    return BenchmarkCells(cells, "cells", "").split(fold, SPLIT)[0].obs


def test_batches_of_which_nothing_can_be_held_out_are_named(cells: AnnData) -> None:
    batch = cells.obs["batch"].astype(str).to_numpy(dtype=object)
    few = np.flatnonzero((cells.obs["perturbation"] == "P1").to_numpy() & (batch == "batch_1"))[:5]
    batch[few] = "few"  # nor has it controls
    obs = cells.obs.assign(batch=pd.Categorical(batch))
    design = BenchmarkCells(with_obs(cells, obs), "cells", "").design
    section = read_yaml(default_params_file())["benchmark"] | {"min_cells_to_rank": 20}
    found, left_out = folds_of("held_out_batch", design, BenchmarkConfig(**section), 8)
    assert left_out == ["few"]
    assert [fold.name for fold in found] == sorted(set(batch) - {"few"})


@pytest.mark.parametrize("task", TASKS)
def test_no_cell_of_a_held_out_condition_is_trained_on(task: str, cells: AnnData) -> None:
    found = folds(cells, task, min_cells_to_rank=20)
    assert len({fold.name for fold in found}) == len(found) > 0
    for fold in found:
        obs = split_of(cells, fold)
        is_test = (obs["split"] == "test").to_numpy()
        rest = obs[~is_test]
        assert (obs["perturbation"][is_test] != "control").all()
        assert {"train", "val"} <= set(rest["split"])
        if fold.region is None:
            keys = ["perturbation", "batch", "cell_type", "dose"]
        else:
            keys = ["perturbation"]
            rest = obs[~is_test & fold.region.is_inside]
        held_out = set(obs.loc[is_test, keys].itertuples(index=False, name=None))
        assert held_out.isdisjoint(rest[keys].itertuples(index=False, name=None))
        # every stratum that is asked for keeps its controls
        strata = obs.loc[is_test, ["batch", "cell_type"]].drop_duplicates()
        controls = rest.loc[rest["perturbation"] == "control", ["batch", "cell_type"]]
        assert len(strata.merge(controls.drop_duplicates())) == len(strata)


@pytest.mark.parametrize(
    ("task", "held_out"),
    [
        ("held_out_combination", {"P1+P2", "P1+P3", "P1+P4", "P2+P3", "P2+P4", "P3+P4"}),
        ("unseen_perturbation", {"P1", "P2", "P3", "P4"}),
    ],
)
def test_what_is_much_is_dealt_into_a_few_folds(task: str, held_out: set[str]) -> None:
    """No perturbation and no combination is left out, and each is held out once."""
    many = simulated(n_perturbations=4, n_combinations=6, n_interactive=0)
    every, some = folds(many, task), folds(many, task, max_folds=2)
    assert len(every) == len(held_out)
    assert [fold.name for fold in some] == ["group 1 of 2", "group 2 of 2"]
    of_each = [set(many.obs["perturbation"][fold.is_test]) for fold in some]
    if task == "held_out_combination":
        assert of_each[0].isdisjoint(of_each[1])
        assert of_each[0] | of_each[1] == held_out
    else:
        for fold, labels in zip(some, of_each, strict=True):
            seen = set(many.obs["perturbation"][~fold.is_test]) - {"control"}
            parts = {part for label in seen for part in label.split("+")}
            assert held_out - parts, "they are in no combination of the training either"
            assert parts.isdisjoint(held_out - parts)
            assert labels | seen == set(many.obs["perturbation"]) - {"control"}
    for fold in some:
        assert not many.obs["perturbation"][fold.is_test].eq("control").any()


@pytest.mark.parametrize("task", TASKS)
def test_together_the_folds_hold_out_what_the_task_says(task: str, cells: AnnData) -> None:
    found = folds(cells, task, min_cells_to_rank=20)
    held_out = cells.obs[np.any([fold.is_test for fold in found], axis=0)]
    perturbed = cells.obs[cells.obs["perturbation"] != "control"]
    if task in ("held_out_cell_type", "held_out_batch", "spatial_region", "unseen_perturbation"):
        assert len(held_out) == len(perturbed)
    elif task == "held_out_combination":
        assert set(held_out["perturbation"]) == {"P1+P2"}
    else:
        assert set(held_out["dose"]) == {1.0, 2.0}, "the smallest is never held out"


@pytest.mark.parametrize(("asked", "labels"), [(1, {"P1+P2", "P3+P4"}), (3, None)])
def test_combinations_are_simulated_where_too_few_would_be(
    params: dict[str, Any], asked: int, labels: set[str] | None
) -> None:
    """Of one or two nothing is left that tells of the one that is held out."""
    params["simulate"] |= {"n_perturbations": 3, "n_combinations": asked}
    params["benchmark"]["combinations"] = {
        "n_perturbations": 4,
        "n_combinations": 2,
        "interaction": "company",
    }
    data = cells_of(None, "held_out_combination", params)
    expected = labels or {"P1+P2", "P1+P3", "P2+P3"}
    assert {label for label in set(data.cells.obs["perturbation"]) if "+" in label} == expected
    assert json.loads(data.identity)["interaction"] == ("company" if labels else "own")
    params["benchmark"]["combinations"]["n_cell"] = 9
    if labels:
        with pytest.raises(ConfigError, match=r"simulate\.n_cell: unknown key"):
            cells_of(None, "held_out_combination", params)


def test_an_unseen_perturbation_is_seen_in_no_combination(cells: AnnData) -> None:
    for fold in folds(cells, "unseen_perturbation"):
        rest = cells.obs.loc[~fold.is_test, "perturbation"]
        assert not rest.str.contains(fold.name).any()


def test_a_perturbation_of_one_cell_type_alone_stays_in_training(cells: AnnData) -> None:
    is_gone = (cells.obs["perturbation"] == "P1") & (cells.obs["cell_type"] == "type_1")
    some = cells[~is_gone.to_numpy()].copy()
    for fold in folds(some, "held_out_cell_type"):
        assert "P1" not in set(some.obs["perturbation"][fold.is_test])


def test_a_fold_of_which_nothing_can_be_scored_is_none(cells: AnnData) -> None:
    with pytest.raises(NotAllowed, match="no held-out condition has 900 cells"):
        folds(cells, "held_out_cell_type", min_cells=900)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("held_out_dose", "no dose"),
        ("spatial_region", "no coordinates"),
        ("unseen_perturbation", "no embeddings"),
        ("held_out_combination", "no combination has parts"),
    ],
)
def test_data_that_do_not_allow_a_task_are_told_why(task: str, reason: str) -> None:
    with pytest.raises(NotAllowed, match=reason):
        folds(plain(), task)


def test_a_perturbation_without_an_embedding_is_named(cells: AnnData) -> None:
    some = cells.copy()
    some.uns["perturbation_embeddings"] = pd.DataFrame([[1.0]], index=["P1"])
    with pytest.raises(NotAllowed, match="no vector of 'P2'"):
        folds(some, "unseen_perturbation")


def test_folds_are_asked_for_by_name_or_number() -> None:
    some = [Fold(name, name, np.zeros(1, bool)) for name in ("2", "B, naive", "T")]
    assert [fold.name for fold in chosen(some, ["B, naive"])] == ["B, naive"]
    assert [fold.name for fold in chosen(some, ["3,1"])] == ["2", "T"]
    assert [fold.name for fold in chosen(some, ["name-B, naive"])] == ["B, naive"]
    assert chosen(some, []) == some
    clusters = [
        Fold(name, "", fold.is_test) for name, fold in zip(["0", "1", "9"], some, strict=False)
    ]
    assert [fold.name for fold in chosen(clusters, ["9", "3"])] == ["9"]
    with pytest.raises(
        ConfigError, match=r"'1': is the name of a fold, and the number of another one \('0'\)"
    ):
        chosen(clusters, ["1"])
    asked = ["name-1", "number-1"]
    assert [fold.name for fold in chosen(clusters, asked)] == ["0", "1"]
    with pytest.raises(ConfigError, match=r"no fold 'C'; folds: '2', 'B, naive', 'T'"):
        chosen(some, ["C"])


def test_kang_has_five_folds(published: Callable[[str], Path]) -> None:
    params = read_yaml(default_params_file())
    data = cells_of(published("kang_pbmc_ifnb"), "held_out_cell_type", params)
    found = folds(data.cells, "held_out_cell_type")
    assert [fold.name for fold in found] == sorted(set(data.cells.obs["cell_type"]))
    assert len(found) == 5
    for fold in found:
        held_out = data.cells.obs[fold.is_test]
        assert set(held_out["perturbation"]) == {"IFNb"}
        assert set(held_out["cell_type"]) == {fold.name}


def test_the_clearest_knock_outs_are_those_of_the_dense_t_test(
    published: Callable[[str], Path],
) -> None:
    params = read_yaml(default_params_file())
    cells = cells_of(published("papalexi_thp1_crispr"), "held_out_batch", params).cells
    here = cells[(cells.obs["batch"] == cells.obs["batch"].iloc[0]).to_numpy()]
    counts = here.layers["counts"]
    logged = log_normalise(counts, median_library(counts)).toarray()
    label = here.obs["perturbation"].astype(str).to_numpy()
    shifted = {}
    for one in sorted(set(label) - {"control"}):
        if (label == one).sum() >= 40:
            p = ttest_ind(logged[label == one], logged[label == "control"]).pvalue
            shifted[one] = (p < 0.05 / len(p)).sum()
    expected = sorted(shifted, key=lambda one: (-shifted[one], one))
    assert clearest_knock_outs(here, "control", len(expected), 40) == expected


def test_papalexi_has_three_folds_of_eight_knock_outs(published: Callable[[str], Path]) -> None:
    params = read_yaml(default_params_file())
    data = cells_of(published("papalexi_thp1_crispr"), "held_out_batch", params)
    found = folds(data.cells, "held_out_batch")
    assert [fold.name for fold in found] == sorted(set(data.cells.obs["batch"]))
    for fold in found:
        held_out = data.cells.obs[fold.is_test]
        here = data.cells[(data.cells.obs["batch"] == fold.name).to_numpy()]
        assert set(held_out["perturbation"]) == set(clearest_knock_outs(here, "control", 8, 40))
        assert held_out["perturbation"].nunique() == 8
    clear = {"IFNGR1", "IFNGR2", "JAK2", "STAT1"}
    assert all(clear <= set(data.cells.obs["perturbation"][fold.is_test]) for fold in found)
