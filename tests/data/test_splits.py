"""Splits: what is held out, what never is, and that nothing but names and seed decides."""

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfmvc.config import default_params_file, read_yaml
from cfmvc.data.canonical import load_cells
from cfmvc.data.config import DataConfig, SplitConfig
from cfmvc.data.held_out import ENOUGH_TO_SCORE
from cfmvc.data.prepared import LEAST_CONTROLS
from cfmvc.data.splits import Split, assign_split, is_held_out
from cfmvc.errors import DataError
from cfmvc.evaluation.config import EvaluateConfig


def table(sizes: dict[tuple[str, str, str], int]) -> pd.DataFrame:
    """Cells of (perturbation, batch, cell type) in the numbers given."""
    rows = [key for key, n in sizes.items() for _ in range(n)]
    obs = pd.DataFrame(rows, columns=["perturbation", "batch", "cell_type"])
    obs.index = pd.Index([f"c{i}" for i in range(len(obs))])
    return obs


def full(perturbations: list[str], batches: list[str], cell_types: list[str], n: int = 8):
    return table(dict.fromkeys(product(["control", *perturbations], batches, cell_types), n))


def split(obs: pd.DataFrame, kind: str = "auto", held_out=None, **changes) -> Split:
    values = {"test_fraction": 0.3, "val_fraction": 0.2, "seed": 0, **changes}
    return assign_split(obs, SplitConfig(kind=kind, held_out=held_out, **values), "+", "control")


CONTEXTS = ("cell_type", "batch", "combination")
NOTHING = (
    "nothing can be held out|occurs in two values|has both perturbed|gives no condition 8|"
    "no perturbation has 8 cells"
)
tables = st.dictionaries(
    st.tuples(
        st.sampled_from(["control", "A", "B", "A+B"]),
        st.sampled_from(["b1", "b2", "b3"]),
        st.sampled_from(["T", "B cell", "NK"]),
    ),
    st.integers(1, 40),
    min_size=4,
).map(table)


def is_measured(obs: pd.DataFrame) -> pd.Series:
    """Whether a cell's stratum has controls."""
    controls = obs[obs["perturbation"] == "control"]
    strata = set(zip(controls["batch"], controls["cell_type"], strict=True))
    own = zip(obs["batch"], obs["cell_type"], strict=True)
    return pd.Series([stratum in strata for stratum in own], index=obs.index)


def can_be_scored(obs: pd.DataFrame, cells: pd.DataFrame) -> bool:
    """Whether 8 of the cells are of one stratum with enough controls."""
    controls = obs[obs["perturbation"] == "control"]
    for (batch, cell_type), some in cells.groupby(["batch", "cell_type"]):
        here = (controls["batch"] == batch) & (controls["cell_type"] == cell_type)
        if len(some) >= 8 and here.sum() >= LEAST_CONTROLS:
            return True
    return False


def can_be_held_out(obs: pd.DataFrame, context: str) -> bool:
    """Whether any context may go, tried one by one."""
    perturbed = obs[obs["perturbation"] != "control"]
    keys = ["perturbation"] if context == "combination" else ["perturbation", context]
    for (label, *_), cells in perturbed.groupby(keys):
        rest = obs.drop(cells.index)
        trained = set(rest.loc[is_measured(obs)[rest.index], "perturbation"])
        needed = set(label.split("+")) if context == "combination" else {label}
        is_left = needed <= trained and (context != "combination" or len(needed) > 1)
        is_scored = can_be_scored(obs, cells)
        all_there = all(set(cells[name]) <= set(rest[name]) for name in ("batch", "cell_type"))
        if is_left and is_scored and all_there:
            return True
    return False


@settings(max_examples=60, deadline=None)
@given(
    obs=tables,
    kind=st.sampled_from(["auto", "random", "held_out_cell_type", "held_out_batch"]),
    seed=st.integers(0, 5),
    order=st.randoms(use_true_random=False),
)
def test_properties_of_every_split(obs, kind, seed, order) -> None:
    is_possible = (obs["perturbation"] != "control").any()
    if kind.startswith("held_out"):
        is_possible = can_be_held_out(obs, kind.removeprefix("held_out_"))
    elif kind == "random" or not any(map(partial(can_be_held_out, obs), CONTEXTS)):
        sizes = obs[is_measured(obs) & (obs["perturbation"] != "control")].value_counts()
        n_most = sizes.max() if len(sizes) else 0
        is_possible = n_most >= 16 or min(round(0.3 * n_most), n_most - 1) >= 8
    if not is_possible:
        with pytest.raises(DataError, match=NOTHING):
            split(obs, kind, seed=seed)
        return
    result = split(obs, kind, seed=seed)
    shuffled = list(range(len(obs)))
    order.shuffle(shuffled)
    again = split(obs.iloc[shuffled], kind, seed=seed)

    parts = pd.Series(result.labels, index=obs.index)
    np.testing.assert_array_equal(again.labels, parts.iloc[shuffled])
    assert (again.sha256, again.held_out) == (result.sha256, result.held_out)

    is_test = result.labels == "test"
    is_control = (obs["perturbation"] == "control").to_numpy()
    assert set(result.labels) <= {"train", "val", "test"}
    assert not is_test[is_control].any()
    if result.kind == "random":
        assert result.held_out == []
        assert is_measured(obs)[is_test].all()
    else:
        assert is_test.any()
        np.testing.assert_array_equal(is_test, is_held_out(obs, result.kind, result.held_out))
        kept = obs[is_measured(obs) & ~is_test]
        if result.kind != "held_out_combination":
            assert set(obs.loc[is_test, "perturbation"]) <= set(kept["perturbation"])
        for column in ("batch", "cell_type"):
            assert set(obs[column]) == set(obs.loc[~is_test, column])
        for entry in result.held_out:
            of_entry = (obs[list(entry)] == pd.Series(entry)).all(axis=1)
            assert can_be_scored(obs, obs[of_entry])
    trained = obs[result.labels == "train"]
    # every perturbation is seen in training, in its parts at least, and every stratum's control
    parts = {part for label in trained["perturbation"] for part in label.split("+")}
    assert {part for label in obs["perturbation"] for part in label.split("+")} == parts
    keys = ["batch", "cell_type"]
    controls = obs[is_control].groupby(keys).size().index
    is_trained_control = trained["perturbation"] == "control"
    assert set(trained[is_trained_control].groupby(keys).size().index) == set(controls)
    # validation is stratified: one cell at least of every condition that has five
    rest = obs[~is_test].assign(is_val=(result.labels == "val")[~is_test])
    for _, condition in rest.groupby(["perturbation", *keys]):
        n = len(condition)
        wanted = max(1, round(0.2 * n)) if n >= 5 else min(round(0.2 * n), n - 1)
        assert condition["is_val"].sum() == wanted


def test_another_seed_gives_another_split_of_the_same_conditions() -> None:
    obs = full(["A", "B"], ["b1", "b2"], ["T", "NK"])
    one, two = split(obs, seed=0), split(obs, seed=1)
    assert one.held_out == two.held_out
    assert one.sha256 != two.sha256
    assert (one.labels != two.labels).any()


def test_a_random_split_takes_a_share_of_every_perturbed_condition() -> None:
    obs = full(["A", "B"], ["b1", "b2"], ["T"], n=40)
    result = split(obs, "random")
    n_test = obs[result.labels == "test"].groupby(["perturbation", "batch", "cell_type"]).size()
    assert n_test.to_dict() == {(p, b, "T"): 12 for p in "AB" for b in ("b1", "b2")}


def test_a_random_split_tests_enough_cells_of_a_condition_to_score_it() -> None:
    sizes = {("control", "b1", "T"): 20, ("A", "b1", "T"): 20, ("B", "b1", "T"): 15}
    obs = table(sizes | {("C", "b1", "T"): 1, ("A", "b2", "T"): 90})
    result = split(obs, "random", test_fraction=0.2)
    is_test = result.labels == "test"
    # 8 of 20; B cannot spare 8; nothing can be measured in b2, which has no control
    assert obs[is_test].value_counts().to_dict() == {("A", "b1", "T"): 8, ("B", "b1", "T"): 3}
    n_scored = EvaluateConfig.model_validate(read_yaml(default_params_file())["evaluate"]).min_cells
    assert n_scored == ENOUGH_TO_SCORE


def test_a_random_split_tests_enough_cells_of_each_dose() -> None:
    obs = table({("control", "b1", "T"): 20, ("A", "b1", "T"): 40})
    obs["dose"] = np.where(obs["perturbation"] == "control", 0.0, np.arange(60) % 2 + 1.0)
    is_test = split(obs, "random", test_fraction=0.2).labels == "test"
    assert obs.loc[is_test, "dose"].value_counts().to_dict() == {1.0: 8, 2.0: 8}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {("control", "b1", "T"): 50, ("A", "b1", "T"): 15},
            "split.test_fraction: 0.2 gives no condition 8 test cells, which a score needs (the "
            "largest one has 15 cells, of which 3 would test); raise it, or hold whole conditions "
            "out with split.kind",
        ),
        (
            {("control", "b1", "T"): 50, ("A", "b2", "T"): 50},
            "split: no stratum (batch and cell type) has both perturbed cells and controls, so no "
            "effect can be measured; `cfmvc fit` trains on all cells without a test",
        ),
    ],
)
def test_a_random_split_of_which_nothing_could_be_scored_is_refused(sizes, message: str) -> None:
    with pytest.raises(DataError) as raised:
        split(table(sizes), "random", test_fraction=0.2)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("obs", "kind"),
    [
        (full(["A"], ["b1", "b2"], ["T", "NK"]), "held_out_cell_type"),
        (full(["A"], ["b1", "b2"], ["T"]), "held_out_batch"),
        (full(["A"], ["b1"], ["T"], n=20), "random"),
    ],
)
def test_auto_goes_by_the_data(obs: pd.DataFrame, kind: str) -> None:
    assert split(obs).kind == kind


def test_the_largest_condition_is_chosen_and_ties_go_by_label_and_number() -> None:
    obs = full(["A"], ["b1"], ["CD14+ Monocytes", "CD4 T cells", "NK"])
    assert split(obs).held_out == [{"perturbation": "A", "cell_type": "CD4 T cells"}]
    larger = pd.concat([obs, table({("A", "b1", "NK"): 1}).rename(index=lambda name: "x" + name)])
    assert split(larger).held_out == [{"perturbation": "A", "cell_type": "NK"}]


def test_no_perturbation_and_no_context_loses_more_than_half() -> None:
    obs = full(["A", "B", "C", "D"], ["b1"], ["T", "NK", "B cell", "DC"])
    held_out = pd.DataFrame(split(obs, test_fraction=0.9).held_out)
    assert len(held_out) == 8
    assert (held_out.groupby("perturbation").size() == 2).all()
    assert (held_out.groupby("cell_type").size() == 2).all()


def test_contexts_without_controls_are_chosen_last() -> None:
    obs = table(
        {
            ("control", "b1", "T"): 8,
            ("control", "b1", "DC"): 8,
            ("control", "b2", "DC"): 8,
            ("A", "b1", "DC"): 8,
            ("A", "b1", "T"): 8,
            ("A", "b2", "T"): 50,
        }
    )
    assert split(obs).held_out == [{"perturbation": "A", "cell_type": "DC"}]


def test_contexts_without_any_control_are_not_chosen() -> None:
    sizes = dict.fromkeys(product(["control", "A"], ["b1"], ["T", "DC"]), 8)
    obs = table(sizes | {("A", "b1", "NK"): 50, ("A", "b1", "Mono"): 50})
    held_out = split(obs, test_fraction=0.9).held_out
    assert held_out == [{"perturbation": "A", "cell_type": "DC"}]


def test_a_perturbation_keeps_a_context_with_controls() -> None:
    """A in b1, where there are no controls, cannot be learnt from."""
    alone = {("A", "b1", "T"): 20, ("A", "b2", "T"): 20, ("control", "b2", "T"): 20}
    with pytest.raises(DataError) as raised:
        split(table(alone), "held_out_batch")
    assert str(raised.value) == (
        "split.kind held_out_batch: no perturbation occurs in two values of batch with controls, "
        "one to test and one to train on; choose another kind"
    )
    more = table(alone | dict.fromkeys(product(["control", "B"], ["b2", "b3"], ["T"]), 20))
    assert {entry["perturbation"] for entry in split(more, "held_out_batch").held_out} == {"B"}
    assert split(table(alone)).kind == "random"  # auto takes what is possible


def test_a_combination_is_held_out_everywhere_and_only_if_its_parts_are_seen() -> None:
    obs = full(["A", "B", "A+B", "A+C"], ["b1", "b2"], ["T", "NK"])
    result = split(obs, "held_out_combination", test_fraction=0.9)
    assert result.held_out == [{"perturbation": "A+B"}]
    assert set(obs.loc[result.labels == "test", "perturbation"]) == {"A+B"}
    assert (result.labels[obs["perturbation"] == "A+B"] == "test").all()


def test_real_data_resolve_as_documented(
    published: Callable[[str], Path], config: DataConfig
) -> None:
    declared = SplitConfig(kind="auto", held_out=None, test_fraction=0.2, val_fraction=0.1, seed=0)
    kang = load_cells(published("kang_pbmc_ifnb"), config)
    result = assign_split(kang.obs, declared, "+", "control")
    assert result.kind == "held_out_cell_type"
    assert result.held_out == [{"perturbation": "IFNb", "cell_type": "CD4 T cells"}]
    assert result.to_json()["n_cells"] == {"train": 1221, "val": 135, "test": 200}

    papalexi = load_cells(published("papalexi_thp1_crispr"), config)
    result = assign_split(papalexi.obs, declared, "+", "control")
    assert result.kind == "held_out_batch"
    assert len(result.held_out) == 15
    assert len({entry["perturbation"] for entry in result.held_out}) == 15


def test_only_what_can_be_scored_is_held_out() -> None:
    """A is the largest in NK, in conditions of 6 cells; B has 9 there, and 3 of each dose."""
    sizes = dict.fromkeys(product(["control"], [f"b{i}" for i in range(6)], ["T", "NK"]), 5)
    sizes |= dict.fromkeys(product(["A"], [f"b{i}" for i in range(6)], ["T", "NK"]), 6)
    sizes |= {("B", "b1", "NK"): 9, ("B", "b1", "T"): 9, ("C", "b1", "NK"): 8, ("C", "b1", "T"): 8}
    obs = table(sizes)
    obs["dose"] = 1.0
    of_b = (obs["perturbation"] == "B").to_numpy()
    obs.loc[of_b, "dose"] = np.arange(of_b.sum()) % 3 + 1.0
    held_out = split(obs, "held_out_cell_type", test_fraction=0.9).held_out
    assert held_out == [{"perturbation": "C", "cell_type": "NK"}]
    few = obs[obs["perturbation"] != "C"]
    with pytest.raises(DataError) as raised:
        split(few, "held_out_cell_type")
    assert str(raised.value) == (
        "split.kind held_out_cell_type: no perturbation has 8 cells in a stratum with 5 controls, "
        "to be scored (of one dose, where there are doses); take coarser batches or cell types "
        "(--map batch=COLUMN), or name conditions in split.held_out and lower evaluate.min_cells"
    )
    declared = [{"perturbation": "A", "cell_type": "NK"}]
    assert split(few, "held_out_cell_type", declared).held_out == declared


def test_auto_holds_combinations_out_where_there_is_one_stratum() -> None:
    obs = full(["A", "B", "A+B"], ["b1"], ["T"])
    result = split(obs)
    assert (result.kind, result.held_out) == ("held_out_combination", [{"perturbation": "A+B"}])
