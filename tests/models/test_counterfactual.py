"""Counterfactual counts: the right distribution, the identity, and nothing out of nothing."""

import numpy as np
import pytest
import scipy.stats
import torch

from cfmvc.models.counterfactual import counterfactual_mean, counterfactual_sample

N = 40_000


def nb(mean: float, theta: float) -> "scipy.stats.rv_frozen":
    return scipy.stats.nbinom(theta, theta / (theta + mean))


@pytest.mark.parametrize("theta", [0.3, 2.0, 50.0])
@pytest.mark.parametrize(("mean", "new"), [(3.0, 7.5), (7.5, 3.0), (0.05, 2.0), (2.0, 0.05)])
def test_carries_one_negative_binomial_to_the_other(mean: float, new: float, theta: float) -> None:
    torch.manual_seed(0)
    x = torch.from_numpy(nb(mean, theta).rvs(N, random_state=0)).float()[:, None]
    drawn = counterfactual_sample(
        x, torch.full((N, 1), mean), torch.full((N, 1), new), torch.tensor([theta])
    ).numpy()[:, 0]
    # The exact distribution: chi-square over counts that are expected often enough.
    wanted = nb(new, theta)
    edges = np.arange(int(wanted.ppf(0.999)) + 2)
    expected = np.append(N * wanted.pmf(edges), N * wanted.sf(edges[-1]))
    found = np.append([(drawn == k).sum() for k in edges], (drawn > edges[-1]).sum())
    often = expected >= 5
    expected = np.append(expected[often], expected[~often].sum())
    found = np.append(found[often], found[~often].sum())
    keep = expected > 0
    statistic = ((found[keep] - expected[keep]) ** 2 / expected[keep]).sum()
    assert scipy.stats.chi2.sf(statistic, keep.sum() - 1) > 1e-4


def test_equal_means_leave_every_count_as_it_is() -> None:
    x = torch.poisson(torch.rand(50, 20) * 5)
    mean, theta = torch.rand(50, 20) * 5, torch.rand(20)
    assert torch.equal(counterfactual_sample(x, mean, mean.clone(), theta), x)
    assert torch.equal(counterfactual_mean(x, mean, mean.clone(), theta), x)


def test_expectation_is_that_of_the_samples() -> None:
    torch.manual_seed(0)
    x = torch.tensor([[0.0, 4.0, 9.0, 2.0]]).expand(N, 4)
    mean = torch.tensor([[0.5, 3.0, 6.0, 2.0]]).expand(N, 4)
    new = torch.tensor([[4.0, 1.0, 12.0, 2.0]]).expand(N, 4)
    theta = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = counterfactual_sample(x, mean, new, theta).mean(0)
    expected = counterfactual_mean(x, mean, new, theta)[0]
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0.02)


@pytest.mark.parametrize("mean", [0.0, 1e-12, 1e6])
@pytest.mark.parametrize("new", [0.0, 1e-12, 1e6])
@pytest.mark.parametrize("theta", [4.6e-5, 1.0, 2.2e4])
def test_is_finite_at_the_extremes(mean: float, new: float, theta: float) -> None:
    x = torch.tensor([[0.0, 1.0, 1e6]])
    arguments = (x, torch.full((1, 3), mean), torch.full((1, 3), new), torch.full((3,), theta))
    for values in (counterfactual_sample(*arguments), counterfactual_mean(*arguments)):
        assert torch.isfinite(values).all()
        assert (values >= 0).all()
