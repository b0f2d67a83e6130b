"""What is beyond the training is said, and what is within it is not."""

from dataclasses import replace

import numpy as np
import torch

from cfmvc.models.reference import ReferenceCells
from cfmvc.stages.beyond import (
    beyond_training,
    sentences,
    unlike_embeddings,
    unlike_training,
    without_dose,
)

NAMES = ("control", "A", "B", "C", "new")


def reference() -> ReferenceCells:
    """A at doses up to 2, B and C alone, A with B; nothing of the last column."""
    vectors = torch.tensor(
        [[0, 0, 0, 0, 0], [0, 2, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 1, 1, 0, 0.0]]
    )
    n = len(vectors)
    zero, latent = torch.zeros(n, dtype=torch.int64), torch.zeros(n, 2)
    return ReferenceCells(
        vectors, torch.arange(n), zero, zero, torch.ones(n), latent, latent, latent, latent
    )


def said(*vectors: list[float]) -> list[str]:
    labels = [f"condition {number}" for number in range(len(vectors))]
    return sentences(beyond_training(reference(), NAMES, torch.tensor(vectors), labels))


def test_within_the_training_nothing_is_said() -> None:
    assert said([0, 0, 0, 0, 0.0], [0, 0.1, 0, 0, 0], [0, 2.0, 0, 0, 0], [0, 1.0, 1.0, 0, 0]) == []


def test_each_way_out_is_named() -> None:
    assert said([0, 3.0, 0, 0, 0]) == [
        "condition 0: dose 3 of 'A' is beyond the largest of the training, 2"
    ]
    assert said([0, 0, 0, 0, 1.0]) == [
        "condition 0: no training cell was given 'new'; its embedding alone tells of it"
    ]
    (together,) = said([0, 1.0, 0, 1.0, 0])
    assert together.startswith("condition 0: never seen together")


def test_what_was_seen_with_others_only_is_named_where_it_is_asked_for_alone() -> None:
    """The cells of B alone are left out; it comes with A."""
    cells = reference().select(torch.tensor([0, 1, 3, 4]))
    asked = torch.tensor([[0, 1.0, 0, 0, 0], [0, 0, 1.0, 0, 0], [0, 1.0, 1.0, 0, 0]])
    assert sentences(beyond_training(cells, NAMES, asked, ["A", "B", "A+B"])) == [
        "B: never seen alone, only with others; what it does without these is not known"
    ]


def test_what_holds_of_several_conditions_is_said_once() -> None:
    high, pair = [0, 3.0, 0, 0, 0], [0, 1.0, 0, 1.0, 0]
    assert said(high, pair, high, high, high) == [
        "condition 0, condition 2, condition 3, ... (4 conditions): dose 3 of 'A' is beyond the "
        "largest of the training, 2",
        "condition 1: never seen together; what is particular to these is not known",
    ]


def test_cells_without_controls_beside_them_have_measured_nothing() -> None:
    """The cells of C are of a batch in which nobody is unperturbed."""
    cells = replace(reference(), batch=torch.tensor([0, 0, 0, 1, 0]))
    asked = torch.tensor([[0, 0, 1.0, 0, 0], [0, 0, 0, 1.0, 0]])
    (warning,) = sentences(beyond_training(cells, NAMES, asked, ["fine", "lonely"]))
    assert warning.startswith("lonely: no cell of 'C' in the training had controls")
    assert cells.measured.tolist() == [False, True, True, False, False]


def test_a_dose_that_nobody_asked_for_is_named_where_the_training_had_others() -> None:
    """A was given at 1 and 2, B and C at 1 alone, the last one never."""
    asked, labels = torch.eye(5), list(NAMES)
    asked[0] = 0.0
    assert sentences(without_dose(reference(), asked, labels)) == [
        "A, new: no dose was asked for: 1 is taken, and those of the training are 1 to 2"
    ]
    vectors = torch.tensor([[0, 0, 0, 0, 0], [0, 10.0, 0, 0, 0], [0, 0, 1.0, 1.0, 0]])
    cells = replace(reference(), vectors=vectors, vector=torch.tensor([0, 0, 1, 1, 2]))
    both = torch.tensor([[0, 1.0, 1.0, 0, 0]])
    assert sentences(without_dose(cells, torch.cat([asked, both]), [*labels, "A+B"])) == [
        "A, A+B: no dose was asked for: 1 is taken, and that of the training is 10",
        "new: no dose was asked for: 1 is taken, and those of the training are 1 to 10",
    ]
    assert list(without_dose(cells, asked[2:4], labels[2:4])) == []


def test_an_embedding_far_from_those_of_the_training_is_named() -> None:
    embedding = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.5], [0.3, 0.0], [2.0, 0.0]])
    asked = torch.tensor([[0, 1.0, 0, 0, 0], [0, 0, 0, 0, 1.0]])
    (warning,) = sentences(unlike_embeddings(embedding, NAMES, asked, ["usual", "odd"]))
    assert warning.startswith("odd: the embedding of 'new' is 2.0 times as far")
    assert list(unlike_embeddings(torch.zeros(5, 0), NAMES, asked, ["usual", "odd"])) == []


def test_controls_unlike_any_of_the_training() -> None:
    scores = np.asarray([[0.9, -1.0], [0.0, -2.5], [np.nan, np.nan]])
    (only,) = sentences(unlike_training(scores, ["usual", "odd", "unknown"]))
    assert only.startswith("odd: the controls are 2.5 times as far")
    assert list(unlike_training(np.zeros((1, 0)), ["single stratum"])) == []
