"""From labels to perturbation vectors and columns."""

import json

import numpy as np
import pytest

from cfmvc.data.vocabulary import Vocabulary
from cfmvc.errors import DataError, UnknownLabelError


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.of(["B", "control", "A+B", "A+C"], ["b2", "b1"], ["T"], "control")


def test_columns_are_the_control_then_the_sorted_parts(vocabulary: Vocabulary) -> None:
    assert vocabulary.perturbations == ("control", "A", "B", "C")
    assert vocabulary.batches == ("b1", "b2")
    assert vocabulary.control == "control"


def test_the_control_is_the_zero_vector_and_a_combination_is_multi_hot(
    vocabulary: Vocabulary,
) -> None:
    labels = ["control", "A", "A+B", "B+A", "A+control", "C+B+A"]
    expected = [
        [0, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 1, 1, 0],
        [0, 1, 0, 0],
        [0, 1, 1, 1],
    ]
    matrix = vocabulary.perturbation_matrix(labels)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, expected)
    assert vocabulary.perturbation_matrix([]).shape == (0, 4)


@pytest.mark.parametrize("control", ["non_targeting", "NegCtrl_NegCtrl", "ctrl"])
def test_a_control_whose_label_holds_the_separator_is_the_zero_vector(control: str) -> None:
    labels = [control, "A_B", f"A_{control}", "A"]
    vocabulary = Vocabulary.of(labels, ["b"], ["T"], control, "_", embedded=[control, "A_B", "C"])
    assert vocabulary.perturbations == (control, "A", "B", "C")
    expected = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
    np.testing.assert_array_equal(vocabulary.perturbation_matrix(labels), expected)


def test_a_part_of_the_controls_label_is_a_perturbation_where_it_stands_alone() -> None:
    labels = ["DMSO+LPS", "LPS", "A"]
    vocabulary = Vocabulary.of(labels, ["b"], ["T"], "DMSO+LPS")
    assert vocabulary.perturbations == ("DMSO+LPS", "A", "LPS")
    assert vocabulary.perturbation_matrix(labels).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_doses_multiply_and_do_not_touch_the_control(vocabulary: Vocabulary) -> None:
    matrix = vocabulary.perturbation_matrix(["control", "A", "A+B", "B"], [np.nan, 0.5, 2.0, 0.0])
    np.testing.assert_array_equal(
        matrix, [[0, 0, 0, 0], [0, 0.5, 0, 0], [0, 2, 2, 0], [0, 0, 0, 0]]
    )


@pytest.mark.parametrize("dose", [-1.0, np.nan, np.inf])
def test_a_dose_that_is_none_is_an_error(vocabulary: Vocabulary, dose: float) -> None:
    with pytest.raises(DataError, match="dose: 1 of 2 doses are negative or not finite"):
        vocabulary.perturbation_matrix(["A", "B"], [1.0, dose])


def test_an_unknown_label_is_an_error_that_lists_the_known(vocabulary: Vocabulary) -> None:
    with pytest.raises(UnknownLabelError) as raised:
        vocabulary.perturbation_matrix(["A+D"])
    assert str(raised.value) == (
        "unknown perturbation 'D'; the model knows 'control', 'A', 'B', 'C'"
    )
    with pytest.raises(UnknownLabelError, match="unknown batch 'b3'; the model knows 'b1', 'b2'"):
        vocabulary.batch_codes(["b1", "b3"])
    with pytest.raises(UnknownLabelError, match="unknown cell type 'NK'; the model knows 'T'"):
        vocabulary.cell_type_codes(["NK"])


def test_codes_follow_the_sorted_labels(vocabulary: Vocabulary) -> None:
    np.testing.assert_array_equal(vocabulary.batch_codes(["b2", "b1", "b2"]), [1, 0, 1])
    np.testing.assert_array_equal(vocabulary.is_control(["A", "control"]), [False, True])


def test_an_empty_separator_never_splits() -> None:
    vocabulary = Vocabulary.of(["A+B", "control"], ["b"], ["T"], "control", separator="")
    assert vocabulary.perturbations == ("control", "A+B")


def test_json_brings_it_back(vocabulary: Vocabulary) -> None:
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary


def test_of_very_many_unknown_labels_the_first_are_named(vocabulary: Vocabulary) -> None:
    asked = [f"g{number:03}" for number in range(100)]
    for codes in (vocabulary.perturbation_matrix, vocabulary.batch_codes):
        with pytest.raises(UnknownLabelError) as raised:
            codes(asked)
        lines = str(raised.value).splitlines()
        assert len(lines) == 6
        assert "'g004'" in lines[4]
        assert lines[5] == "and 95 more that are unknown"
