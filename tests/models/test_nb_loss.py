"""The training's reconstruction term against scipy, numerical gradients, and its extremes."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from cfmvc.data.count_terms import SMALL, CountTerms
from cfmvc.models.nb_loss import count_terms, nb_reconstruction

CPU = torch.device("cpu")


WAYS = pytest.mark.parametrize("is_tallied", [True, False], ids=["tallied", "one by one"])


def loss_of(
    logits: torch.Tensor, log_theta: torch.Tensor, x: torch.Tensor, is_tallied: bool
) -> torch.Tensor:
    tally = CountTerms.of_dense(x) if is_tallied else None  # None: what a GPU does
    return nb_reconstruction(logits, log_theta, x, x.sum(1), count_terms(x, log_theta, tally))


def by_scipy(logits: np.ndarray, log_theta: np.ndarray, x: np.ndarray) -> float:
    share = scipy.special.softmax(logits.clip(-20, 20), axis=1)
    mean = np.maximum(x.sum(1, keepdims=True), 1.0) * share
    theta = np.exp(log_theta.clip(-10, 10))
    return -scipy.stats.nbinom.logpmf(x, theta, theta / (theta + mean)).sum(1).mean()


def some(seed: int, scale: float, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.poisson(scale * rng.gamma(0.5, 2.0, size=(6, 7)))
    values = (rng.normal(0, 2, (6, 7)), rng.normal(0, 3, 7), x.astype(float))
    return [torch.from_numpy(value).to(dtype) for value in values]


@WAYS
@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 1.0, 20.0, 1e4]))
def test_agrees_with_scipy(is_tallied: bool, seed: int, scale: float) -> None:
    logits, log_theta, x = some(seed, scale)
    expected = by_scipy(logits.numpy(), log_theta.numpy(), x.numpy())
    assert float(loss_of(logits, log_theta, x, is_tallied)) == pytest.approx(expected, rel=1e-9)
    single = loss_of(logits.float(), log_theta.float(), x.float(), is_tallied)
    rounding = 1e-6 * float(x.sum())  # the terms are as large as the counts, their sum is not
    assert float(single) == pytest.approx(expected, rel=2e-5, abs=rounding)


@WAYS
@pytest.mark.parametrize("scale", [0.5, 30.0])
def test_gradients_agree_with_numerical_ones(scale: float, is_tallied: bool) -> None:
    logits, log_theta, x = some(0, scale)
    arguments = (logits.requires_grad_(), log_theta.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: loss_of(a, b, x, is_tallied), arguments)


@WAYS
def test_what_is_limited_has_no_gradient(is_tallied: bool) -> None:
    logits, log_theta, x = some(1, 3.0)
    logits[0, 0], log_theta[1] = 30.0, -12.0
    gradients = torch.autograd.grad(
        loss_of(logits.requires_grad_(), log_theta.requires_grad_(), x, is_tallied),
        [logits, log_theta],
    )
    assert gradients[0][0, 0] == 0
    assert gradients[1][1] == 0
    assert (gradients[0] != 0).sum() == 41


def test_sparse_and_dense_counts_have_the_same_tally() -> None:
    x = torch.poisson(torch.rand(20, 9) * torch.tensor([0.1, 2.0, 30.0] * 3))
    dense, sparse = CountTerms.of_dense(x), CountTerms.of_sparse(csr_matrix(x.numpy()), CPU)
    for k in range(2, SMALL + 1):
        assert torch.equal(dense.at_least[:, k - 2], (x >= k).sum(0).float())
    for name in ("at_least", "gene", "value", "base"):
        assert torch.equal(getattr(dense, name), getattr(sparse, name)), name


@WAYS
@pytest.mark.parametrize("count", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("logit", [-100.0, 0.0, 100.0])
@pytest.mark.parametrize("log_theta", [-20.0, 0.0, 20.0])
def test_is_finite_at_the_extremes_with_its_gradients(
    count: float, logit: float, log_theta: float, is_tallied: bool
) -> None:
    x = torch.tensor([[count, 0.0], [0.0, 0.0]])  # the second cell is empty
    logits = torch.tensor([[logit, 0.0], [logit, -logit]], requires_grad=True)
    thetas = torch.tensor([log_theta, -log_theta], requires_grad=True)
    loss = loss_of(logits, thetas, x, is_tallied)
    assert torch.isfinite(loss)
    for gradient in torch.autograd.grad(loss, [logits, thetas]):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("bad", ["logits", "x", "sparse", "one by one"])
def test_non_finite_input_is_not_hidden(bad: str) -> None:
    logits, log_theta, x = some(2, 3.0, torch.float32)
    (logits if bad == "logits" else x)[0, 0] = float("nan")
    tally: CountTerms | None = CountTerms.of_dense(x)
    if bad == "sparse":
        tally = CountTerms.of_sparse(csr_matrix(x.numpy()), CPU)
    elif bad == "one by one":
        tally = None
    terms = count_terms(x, log_theta, tally)
    assert torch.isnan(nb_reconstruction(logits, log_theta, x, x.sum(1), terms))
