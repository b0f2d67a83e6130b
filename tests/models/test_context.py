"""What embeddings tell of perturbations, and how strongly doses act that were never seen."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cfmvc.flow.doses import DoseCurves
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


def strong(p_dim: int = 4) -> ContextEncoder:
    """An encoder whose gate and interaction are far from linear."""
    torch.manual_seed(0)
    made = ContextEncoder(1, 1, p_dim, hidden_dim=8)
    with torch.no_grad():
        made.perturbation.weight.mul_(5.0)
        made.gate[2].weight.mul_(5.0)
    return made.eval()


def strengths(largest: float, n: int = 64) -> torch.Tensor:
    """Vectors of one to three perturbations, the strongest of each of a given strength."""
    p = torch.rand(n, 4, generator=torch.Generator().manual_seed(1))
    p[:, 0] = 0.0
    p[::2, 3], p[::4, 2] = 0.0, 0.0
    return p / p.amax(1, keepdim=True) * largest


@pytest.mark.parametrize("curved", [False, True])
def test_beyond_the_largest_dose_it_goes_on_in_proportion(curved: bool) -> None:
    context, one = strong(), strengths(1.0)
    context.largest_dose.mul_(10.0)
    if curved:
        largest = context.largest_dose.numpy()
        context.calibrate(one, None, DoseCurves(largest, np.full(4, 0.0), np.full(4, 2.0)))
        one = (one > 0).float()  # of several at other doses the curve alone would change the sum
    at_one = alpha(context, 10.0 * one)
    for times in (2.0, 3.0):
        torch.testing.assert_close(alpha(context, 10.0 * times * one), times * at_one)
    context.train()
    assert alpha(context, 20.0 * one).norm() > 3.0 * at_one.norm(), "they would multiply"


@pytest.mark.parametrize("strongest", [0.3, 1.0])
def test_within_the_doses_of_the_training_it_is_what_was_trained(strongest: float) -> None:
    context, p, found = strong(), strengths(strongest), []
    p[5] = 0.0
    for is_training in (True, False):
        context.train(is_training)
        told = alpha(context, p)
        assert (told[5] == 0.0).all()
        found.append([told, *torch.autograd.grad(told.square().sum(), list(context.parameters()))])
    for trained, later in zip(*found, strict=True):
        assert torch.equal(trained, later)


def test_a_training_step_looks_at_no_strength() -> None:
    seen: list[str] = []

    class Listening(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    context, p = strong(), strengths(1.0)
    for is_training in (True, False):
        seen.clear()
        with Listening():
            alpha(context.train(is_training), p)
        assert any("amax" in name for name in seen) is not is_training
