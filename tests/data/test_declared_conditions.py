"""Conditions that a user names to be held out, and what would vanish from the training."""

from itertools import product

import numpy as np
import pytest

from cfmvc.errors import ConfigError, DataError
from tests.data.test_splits import full, split, table


def test_no_batch_vanishes_from_training() -> None:
    """Nobody else is in b9, which is one of two batches of A x NK."""
    sizes = dict.fromkeys(product(["control", "A"], ["b1", "b2"], ["T", "NK"]), 10)
    obs = table(sizes | {("A", "b9", "NK"): 90})
    assert split(obs).held_out == [{"perturbation": "A", "cell_type": "T"}]
    with pytest.raises(DataError) as raised:
        split(obs, "held_out_cell_type", [{"perturbation": "A", "cell_type": "NK"}])
    assert str(raised.value) == (
        "split.held_out[0]: no training cell of the batch 'b9' would be left; "
        "leave one of its conditions out of the list"
    )


def test_declared_conditions_may_have_strata_without_controls() -> None:
    sizes = dict.fromkeys(product(["control", "A", "B"], ["b1", "b2"], ["T", "NK"]), 10)
    del sizes["control", "b2", "NK"]
    declared = [{"perturbation": "A", "cell_type": "NK"}]
    result = split(table(sizes), "auto", declared)
    assert (result.labels == "test").sum() == 20
    del sizes["control", "b1", "NK"]
    with pytest.raises(DataError) as raised:
        split(table(sizes), "auto", declared)
    assert str(raised.value) == (
        "split.held_out: none of these conditions is in a stratum (batch and cell type) with "
        "controls, so none can be scored; name one that is"
    )
    declared.append({"perturbation": "B", "cell_type": "T"})
    with pytest.raises(DataError, match=r"split\.held_out\[1\]: no training cell of 'B' would be"):
        split(table(sizes), "auto", declared)


def test_auto_follows_the_keys_of_declared_conditions() -> None:
    obs = full(["A", "B"], ["b1", "b2"], ["T", "NK"])
    result = split(obs, "auto", [{"batch": "b2", "perturbation": "B"}])
    assert result.kind == "held_out_batch"
    assert result.held_out == [{"perturbation": "B", "batch": "b2"}]
    is_test = (obs["perturbation"] == "B") & (obs["batch"] == "b2")
    np.testing.assert_array_equal(result.labels == "test", is_test)


@pytest.mark.parametrize(
    ("kind", "held_out", "message"),
    [
        (
            "held_out_cell_type",
            [{"perturbation": "A", "cell_type": "t"}, {"perturbation": "a", "cell_type": "NK"}],
            "split.held_out[0]: no perturbed cell has cell_type 't' (did you mean 'T'?); "
            "there are 'NK', 'T'\n"
            "split.held_out[1]: no perturbed cell has perturbation 'a' (did you mean 'A'?); "
            "there are 'A', 'B'",
        ),
        (
            "held_out_cell_type",
            [{"perturbation": "A", "batch": "b1"}],
            "split.held_out[0]: keys 'perturbation', 'batch'; "
            "a held_out_cell_type split needs 'perturbation', 'cell_type'",
        ),
        (
            "held_out_cell_type",
            [{"perturbation": "B", "cell_type": "NK"}],
            "split.held_out[0]: no cell of 'B' has cell_type 'NK'; it occurs in 'T'",
        ),
        (
            "held_out_cell_type",
            [{"perturbation": "control", "cell_type": "T"}],
            "split.held_out[0]: no perturbed cell has perturbation 'control'; there are 'A', 'B'",
        ),
        ("held_out_batch", [], "split.held_out: empty; name a condition, or null to choose"),
        (
            "random",
            [{"perturbation": "A"}],
            "split.held_out: a random split holds no condition out; set it to null, or "
            "split.kind to one of 'held_out_cell_type', 'held_out_batch', 'held_out_combination'",
        ),
        (
            "auto",
            [{"donor": "A"}],
            "split.held_out: keys 'donor' fit no kind of split; valid are "
            "'perturbation', 'cell_type' (held_out_cell_type); "
            "'perturbation', 'batch' (held_out_batch); 'perturbation' (held_out_combination)",
        ),
    ],
)
def test_declared_conditions_are_checked(kind: str, held_out, message: str) -> None:
    obs = full(["A", "B"], ["b1", "b2"], ["T", "NK"])
    obs = obs[~((obs["perturbation"] == "B") & (obs["cell_type"] == "NK"))]
    with pytest.raises(ConfigError) as raised:
        split(obs, kind, held_out)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("kind", "held_out", "message"),
    [
        (
            "held_out_batch",
            [{"perturbation": "B", "batch": "b1"}, {"perturbation": "B", "batch": "b2"}],
            "split.held_out[0]: no training cell of 'B' would be left in a stratum "
            "(batch and cell type) with controls; leave one of its contexts there out of the list\n"
            "split.held_out[1]: no training cell of 'B' would be left in a stratum "
            "(batch and cell type) with controls; leave one of its contexts there out of the list",
        ),
        (
            "held_out_combination",
            [{"perturbation": "A+C"}],
            "split.held_out[0]: 'A+C' cannot be predicted, for no training cell in a stratum "
            "(batch and cell type) with controls has its part 'C'; leave some in training",
        ),
        (
            "held_out_cell_type",
            None,
            "split.kind held_out_cell_type: no perturbation occurs in two values of cell_type, so "
            "each would vanish from training; choose another kind",
        ),
    ],
)
def test_nothing_vanishes_from_training(kind: str, held_out, message: str) -> None:
    obs = full(["A", "B", "A+C"], ["b1", "b2"], ["T"])
    with pytest.raises(DataError) as raised:
        split(obs, kind, held_out)
    assert str(raised.value) == message
