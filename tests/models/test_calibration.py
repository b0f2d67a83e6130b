"""Expectations against drawn counts and exact sums; factors that reach their target."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import binom, nbinom

from cfmvc.models.calibration import Virtual, _expectation, log_change, log_factors, scaled
from cfmvc.models.counterfactual import counterfactual_mean, counterfactual_sample

N_CELLS, N_GENES = 64, 40


def virtual(seed: int = 0, drawn_anew: bool = False) -> Virtual:
    """Real cells, and means after a change by up to e in either direction."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.exp(torch.randn(N_GENES, generator=generator) * 1.5)
    size = torch.exp(0.4 * torch.randn(N_CELLS, 1, generator=generator))
    theta = torch.exp(torch.randn(N_GENES, generator=generator))
    before = level * size
    after = before * torch.exp(torch.randn(N_GENES, generator=generator))
    if drawn_anew:
        return Virtual(None, None, after, theta)
    counts = torch.poisson(before, generator=generator)
    return Virtual(counts, before, after, theta)


def test_expectation_is_that_of_the_counts_that_are_drawn() -> None:
    cells = virtual()
    library, n_draws = 60.0, 3000
    torch.manual_seed(0)
    size = 1.0 / torch.stack([_drawn(cells) for _ in range(200)]).mean(0).sum(1, keepdim=True)
    found = torch.stack(
        [torch.log1p(library * size * _drawn(cells)).mean(0) for _ in range(n_draws)]
    )
    error = found.std(0) / n_draws**0.5
    mean, _ = _expectation(cells, cells.after, library)
    assert ((mean - found.mean(0)).abs() < 5 * error + 0.001).all()


def _drawn(cells: Virtual) -> torch.Tensor:
    return counterfactual_sample(cells.counts, cells.before, cells.after, cells.theta)


def test_expectation_of_new_counts_is_the_exact_sum() -> None:
    cells = virtual(drawn_anew=True)
    library = 50.0
    mean, _ = _expectation(cells, cells.after, library)
    x = np.arange(20_000)
    for gene in (0, 7, 23):
        theta = float(cells.theta[gene])
        exact = 0.0
        for cell in range(N_CELLS):
            mu = float(cells.after[cell, gene])
            size = library / max(float(cells.after[cell].sum()), 1.0)
            exact += nbinom.pmf(x, theta, theta / (theta + mu)) @ np.log1p(size * x) / N_CELLS
        assert float(mean[gene]) == pytest.approx(exact, rel=1e-3)


def test_slope_is_that_of_the_expectation() -> None:
    """One gene at a time, by a factor so small that the totals stay what they are."""
    cells = Virtual(*(None if v is None else v.double() for v in vars(virtual()).values()))
    _, slope = _expectation(cells, cells.after, 60.0)
    for gene in (3, 11):
        step = torch.zeros(N_GENES, dtype=torch.float64)
        step[gene] = 1e-3
        up, _ = _expectation(cells, cells.after * step.exp(), 60.0)
        down, _ = _expectation(cells, cells.after * (-step).exp(), 60.0)
        rise = float(up[gene] - down[gene]) / 2e-3
        # The totals move too, and take a little of the rise away.
        assert rise == pytest.approx(float(slope[gene]), rel=0.35)
        assert rise <= float(slope[gene]) * 1.001


@pytest.mark.parametrize("level", [1e-3, 1.0, 300.0])
def test_expectation_of_given_counts_is_the_exact_sum(level: float) -> None:
    """Counts of one cell: what stays of them is binomial, what is added negative binomial."""
    before = level * torch.tensor([[1.0, 1.0, 2.0, 0.5]], dtype=torch.float64)
    after = before * torch.tensor([[0.3, 3.0, 1.0, 0.999]], dtype=torch.float64)
    counts = torch.tensor([[2.0, 3.0, 7.0, 1.0]], dtype=torch.float64).mul(level).ceil()
    theta = torch.tensor([0.5, 2.0, 1.0, 5.0], dtype=torch.float64)
    library = 40.0
    mean, _ = _expectation(Virtual(counts, before, after, theta), after, library)
    total = float(counterfactual_mean(counts, before, after, theta).sum())
    size, x = library / max(total, 1.0), np.arange(50_000)
    for gene in range(4):
        seen, mu, new, a = (
            float(v) for v in (counts[0, gene], before[0, gene], after[0, gene], theta[gene])
        )
        if new < mu:
            pmf, values = binom.pmf(x, int(seen), new / mu), x
        else:
            shape = a + seen
            pmf, values = nbinom.pmf(x, shape, (a + mu) / (a + new)), x + seen
        assert float(mean[gene]) == pytest.approx(pmf @ np.log1p(size * values), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("drawn_anew", [False, True])
def test_factors_reach_a_target_that_can_be_reached(drawn_anew: bool) -> None:
    cells, library = virtual(drawn_anew=drawn_anew), 60.0
    true = 0.7 * torch.randn(N_GENES, generator=torch.Generator().manual_seed(3))
    target, _ = _expectation(cells, scaled(cells.after, true), library)
    factors, mean = log_factors(cells, target, library)
    found, _ = _expectation(cells, scaled(cells.after, factors), library)
    torch.testing.assert_close(found, target, atol=1e-3, rtol=0.0)
    torch.testing.assert_close(mean, found)
    start, _ = _expectation(cells, cells.after, library)
    half, _ = log_factors(cells, target, library, share=0.5)
    between, _ = _expectation(cells, scaled(cells.after, half), library)
    # The totals do not let all genes be half-way at once.
    torch.testing.assert_close(between, (start + target) / 2, atol=0.02, rtol=0.0)


def test_factors_stay_finite_where_the_target_cannot_be_reached() -> None:
    cells = virtual()
    target = torch.full((N_GENES,), -1.0)
    target[0] = 30.0
    found, _ = log_factors(cells, target, 60.0)
    assert torch.isfinite(found).all()
    assert torch.isfinite(scaled(cells.after, found)).all()


def test_totals_stay_and_factors_of_one_change_nothing() -> None:
    cells = virtual()
    factors = torch.randn(N_CELLS, N_GENES)
    factors[::2] = 0.0
    found = scaled(cells.after, factors)
    assert torch.equal(found[::2], cells.after[::2])
    torch.testing.assert_close(found.sum(1), cells.after.sum(1))


def test_what_is_not_finite_stays_so_and_raises_nothing() -> None:
    for broken in (float("nan"), float("inf")):
        cells = virtual()
        cells.after[3, 5] = broken
        found, mean = log_factors(cells, torch.ones(N_GENES), 60.0)
        assert found.shape == mean.shape == (N_GENES,)
        assert not torch.isfinite(mean).all()


def test_doubtful_targets_are_followed_as_far_as_is_likely() -> None:
    """Against a minimiser that knows neither slope nor Newton's method."""
    cells = Virtual(*(None if v is None else v.double() for v in vars(virtual()).values()))
    library, gene = 60.0, 7
    start, _ = _expectation(cells, cells.after, library)
    target, sd = start.clone(), torch.full_like(start, 0.3)
    target[gene] += 0.4
    found, _ = log_factors(cells, target, library, sd=sd)

    def unlikely(log_factor: float) -> float:
        changed = found.clone()
        changed[gene] = log_factor
        mean, _ = _expectation(cells, scaled(cells.after, changed), library)
        return float((mean[gene] - target[gene]) ** 2 / sd[gene] ** 2 + log_factor**2)

    best = minimize_scalar(unlikely, bounds=(-3.0, 3.0), method="bounded").x
    # The totals, which the slope leaves out, take a little away.
    assert float(found[gene]) == pytest.approx(best, rel=0.2)
    surely, _ = log_factors(cells, target, library)
    assert 0.0 < float(found[gene]) < 0.9 * float(surely[gene])


def test_change_of_each_cell_is_that_of_the_counts_that_are_drawn() -> None:
    cells = virtual()
    library, n_draws = 60.0, 4000
    torch.manual_seed(0)
    expected = counterfactual_mean(cells.counts, cells.before, cells.after, cells.theta)
    size = library / expected.sum(1, keepdim=True)
    now = torch.log1p(library * cells.counts / cells.counts.sum(1, keepdim=True))
    total, squares = torch.zeros_like(now), torch.zeros_like(now)
    for _ in range(n_draws):
        change = torch.log1p(size * _drawn(cells)) - now
        total += change
        squares += change.square()
    mean = total / n_draws
    error = (squares / n_draws - mean.square()).clamp_min(0.0).sqrt() / n_draws**0.5
    found = log_change(cells, library)
    assert ((found - mean).abs() < 5 * error + 0.002).all()
    # The logarithm of the expectation would not have done.
    of_expected = torch.log1p(size * expected) - now
    assert (of_expected - mean).abs().max() > 0.1


@pytest.mark.parametrize(("before", "after"), [(0.05, 0.15), (0.3, 0.15)])
def test_change_of_rare_counts_is_that_of_their_distributions(before: float, after: float) -> None:
    """Neither rises nor falls are told too large, of a gene beside one that fills the total."""
    theta, n_cells, library = torch.tensor([2.0, 1e6]), 20_000, 1000.0
    torch.manual_seed(0)
    means = [torch.tensor([[mean, 1000.0]]).expand(n_cells, 2) for mean in (before, after)]
    counts = torch.poisson(torch._standard_gamma(theta.expand(n_cells, 2)) / theta * means[0])
    counts[:, 1] = 1000.0
    told = log_change(Virtual(counts, *means, theta), library)[:, 0].mean()
    x = np.arange(200)
    start, end = (nbinom.pmf(x, 2.0, 2.0 / (2.0 + mean)) @ np.log1p(x) for mean in (before, after))
    assert float(told) == pytest.approx(end - start, rel=0.05)


def test_what_stays_as_it_is_changes_by_exactly_nothing() -> None:
    cells = virtual()
    after = cells.after.clone()
    after[::3] = cells.before[::3]
    cells.counts[1] = 0.0  # of no counts nothing can stay
    change = log_change(Virtual(cells.counts, cells.before, after, cells.theta), 60.0)
    assert (change[::3] == 0.0).all()
    assert (change[2] != 0.0).any()
    assert torch.isfinite(change).all()


def test_changes_of_many_cells_are_those_of_some_at_a_time() -> None:
    many = Virtual(*(v.repeat(9, 1) if v.dim() == 2 else v for v in vars(virtual()).values()))
    some = log_change(virtual(), 60.0).repeat(9, 1)
    torch.testing.assert_close(log_change(many, 60.0), some)
