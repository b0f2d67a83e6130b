"""What embeddings tell of perturbations, the average one and a single one among them."""

import pytest
import torch

from cfmvc.models.context import ContextEncoder

CONTROL = [0.0, 0.0]


def encoder(vectors: list[list[float]]) -> ContextEncoder:
    torch.manual_seed(0)
    made = ContextEncoder(1, 1, len(vectors), hidden_dim=8, embedding_dim=2).eval()
    made.embed(torch.tensor(vectors, dtype=torch.float64))
    return made


def alpha(context: ContextEncoder, p: torch.Tensor) -> torch.Tensor:
    labels = torch.zeros(len(p), dtype=torch.int64)
    return context(p, labels, labels)[1]


@pytest.mark.parametrize(
    "vectors",
    [
        [CONTROL, [0.0, 1.0], [2.0, 3.0], [1.0, 2.0]],  # the last is the average
        [CONTROL, [1.0, 2.0], [1.0, 2.0]],  # all alike
        [CONTROL, [5.0, 7.0]],
    ],
    ids=["average", "alike", "single"],
)
def test_no_embedding_makes_a_perturbation_none(vectors: list[list[float]]) -> None:
    context = encoder(vectors)
    effects = alpha(context, torch.eye(len(vectors)))
    assert (effects[1:].norm(dim=1) > 1e-3).all()
    assert (alpha(context, torch.zeros(3, len(vectors))) == 0.0).all()
    assert (effects[0] == 0.0).all(), "the control's column is ignored"


def test_others_than_a_single_embedding_are_measured_by_its_own_size() -> None:
    context = encoder([CONTROL, [3.0, 4.0]])
    others = context.in_own_units(torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, 0.0]]))
    torch.testing.assert_close(others.norm(dim=1), torch.tensor([0.0, 1.0, 1.0]))
