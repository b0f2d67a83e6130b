"""The process against the textbook, against a simulated truth, and against what it must not do."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cfmvc.flow import shift_process
from cfmvc.flow.condition_kernels import Conditions
from cfmvc.flow.kept_conditions import foremost, whole_perturbations
from cfmvc.flow.local_scales import RATIOS
from cfmvc.flow.shift_process import NOISE_OF_RATIOS, NOISE_WEIGHT, ShiftProcess

N_TYPES, N_PERTURBATIONS, N_GENES = 6, 8, 200


def screen(seed: int = 0, n_cells: int = 40) -> tuple[Conditions, np.ndarray, np.ndarray]:
    """Shifts with a part of the perturbation, and one that follows the state of the stratum."""
    rng = np.random.default_rng(seed)
    size = np.where(np.arange(N_GENES) < 30, 1.0, 0.02)  # few genes respond
    shared = rng.normal(size=(N_PERTURBATIONS, N_GENES)) * size
    by_state = rng.normal(size=(2, N_GENES)) * size
    state = rng.uniform(-1, 1, (N_TYPES, 2))
    kind, cell_type = np.divmod(np.arange(N_PERTURBATIONS * N_TYPES), N_TYPES)
    truth = shared[kind] + state[cell_type] @ by_state
    n = len(truth)
    conditions = Conditions(
        np.eye(N_PERTURBATIONS)[kind],
        np.zeros(n, np.int64),
        cell_type,
        np.full(n, n_cells),
        np.full(n, 100_000),
        state[cell_type],
        np.zeros((n, 0)),
        np.zeros((n, 0)),
        np.ones(n),
    )
    return conditions, truth, truth + rng.normal(size=truth.shape) / np.sqrt(n_cells)


def error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(((found - truth) ** 2).mean()))


def test_is_the_posterior_of_the_textbook() -> None:
    """Rasmussen & Williams 2006, (2.23) and (2.24), with the joint covariance written out.

    At each ratio of the gene's size; what is measured of the perturbation says how likely each is.
    """
    conditions, _, shift = screen()
    asked, known = conditions.rows(np.arange(3)), conditions.rows(np.arange(3, 48))
    process = ShiftProcess.fit(known, shift[3:])
    both = conditions.kernels(conditions)[process.parts]
    noise = np.diag(1.0 / known.n_cells) + known.noise_of_controls(known)
    crossing = NOISE_WEIGHT * asked.noise_of_controls(known)
    block = np.ix_(known.p[:, 0] > 0, known.p[:, 0] > 0)  # all that is asked for
    shares = process.shares[known.p[:, 0] > 0][0]
    for gene in (0, 31, 199):
        measured, means, variances, usual, weights = shift[3:, gene], [], [], [], []
        for ratio, share in zip(RATIOS, shares, strict=True):
            size = ratio * process.sizes[process.group[gene]]
            prior = size * np.tensordot(process.variances, both, 1)
            of_known = prior[3:, 3:] + NOISE_WEIGHT * noise
            means.append((prior[:3, 3:] + crossing) @ np.linalg.inv(of_known) @ measured)
            precision = np.linalg.inv(prior[3:, 3:] + noise)
            usual.append(np.diag(prior[:3, :3] - prior[:3, 3:] @ precision @ prior[3:, :3]))
            # of the shift from the controls as they were measured
            across = prior[:3, 3:] + crossing / NOISE_WEIGHT
            before = np.diag(prior[:3, :3]) + 1.0 / asked.n_controls
            variances.append(before - np.diag(across @ precision @ across.T))
            of_ratio = (prior[3:, 3:] + NOISE_OF_RATIOS * noise)[block]
            density = multivariate_normal(np.zeros(len(of_ratio)), of_ratio)
            weights.append(share * density.pdf(measured[block[0].ravel()]))
        likely = np.asarray(weights) / np.sum(weights)
        mean = likely @ np.asarray(means)
        variance = likely @ (np.asarray(variances) + (np.asarray(means) - mean) ** 2)
        np.testing.assert_allclose(process.expected(asked)[:, gene], mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(process.spread(asked)[:, gene] ** 2, variance, rtol=1e-4)
        usual_of_gene = process.usual_spread(asked)[:, gene] ** 2
        np.testing.assert_allclose(usual_of_gene, usual[2], rtol=1e-4)


def test_a_condition_is_left_out_as_if_it_had_never_been_measured() -> None:
    """Against the others' covariance, written out; what is measured has the others' noise, too."""
    conditions, _, shift = screen()
    process = ShiftProcess.fit(conditions, shift)
    found = process.left_out(np.asarray([0, 9]))
    kernels = conditions.kernels(conditions)[process.parts]
    signal = np.tensordot(process.variances, kernels, 1)
    noise = np.diag(1.0 / conditions.n_cells) + conditions.noise_of_controls(conditions)
    for place, row in enumerate((0, 9)):
        others = np.delete(np.arange(len(shift)), row)
        of_set = others[(conditions.p[others] == conditions.p[row]).all(axis=1)]
        for gene in (0, 31, 199):
            means, weights = [], []
            for ratio, share in zip(RATIOS, process.shares[row], strict=True):
                size = ratio * process.sizes[process.group[gene]]
                both = size * signal + NOISE_WEIGHT * noise
                gain = both[row, others] @ np.linalg.inv(both[np.ix_(others, others)])
                means.append(gain @ shift[others, gene])
                of_ratio = (size * signal + NOISE_OF_RATIOS * noise)[np.ix_(of_set, of_set)]
                density = multivariate_normal(np.zeros(len(of_set)), of_ratio)
                weights.append(share * density.pdf(shift[of_set, gene]))
            expected = np.average(means, weights=weights)
            assert found[place, gene] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_predicts_a_context_that_was_never_measured_better_than_the_mean_of_others() -> None:
    conditions, truth, shift = screen()
    out = conditions.cell_type == 0
    process = ShiftProcess.fit(conditions.rows(~out), shift[~out])
    found = process.expected(conditions.rows(out))
    elsewhere = shift[~out].reshape(N_PERTURBATIONS, N_TYPES - 1, N_GENES).mean(axis=1)
    assert error(found, truth[out]) < 0.5 * error(elsewhere, truth[out])


def test_few_perturbations_are_enough_where_embeddings_tell_what_they_do() -> None:
    """The unseen one is between two of four that have nothing in common, as fingerprints often are.

    What was measured is explained as well by each being its own, which says nothing of the unseen.
    """
    rng = np.random.default_rng(0)
    vectors = np.vstack([np.eye(4), [0.5, 0.5, 0.0, 0.0]])
    truth = vectors @ rng.normal(size=(4, N_GENES))
    conditions = told_by_vectors(vectors)
    measured = truth + rng.normal(size=truth.shape) / np.sqrt(40)
    process = ShiftProcess.fit(conditions.rows(np.arange(4)), measured[:4])
    unseen = process.expected(conditions.rows(np.asarray([4])))
    assert error(unseen, truth[4]) < 0.5 * error(np.zeros(N_GENES), truth[4])


def told_by_vectors(vectors: np.ndarray) -> Conditions:
    """One condition each, many cells, one stratum."""
    n, deviation = len(vectors), vectors - vectors.mean(axis=0)
    sizes, none = (np.full(n, 40), np.full(n, 10_000)), np.zeros((n, 0))
    ones = np.ones(n, np.int64)
    return Conditions(np.eye(n), ones, ones, *sizes, none, vectors, deviation, np.ones(n))


@pytest.mark.parametrize("n_idle", [0, 12])
def test_of_an_unseen_perturbation_no_more_is_read_into_few_than_they_say(n_idle: int) -> None:
    """What is expected is no worse than to expect nothing, by the average of many draws.

    Vectors have a part that tells of the response and one that does not, and half as much as they
    tell a perturbation has of its own.
    """
    squares = np.zeros(2)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        vectors = rng.normal(size=(5, 4))
        truth = vectors @ rng.normal(size=(4, N_GENES)) + rng.normal(size=(5, N_GENES)) * 2**0.5
        given = np.hstack([vectors, rng.normal(size=(5, n_idle))]) / np.sqrt(4 + n_idle)
        conditions = told_by_vectors(given)
        measured = truth + rng.normal(size=truth.shape) / np.sqrt(40)
        process = ShiftProcess.fit(conditions.rows(np.arange(4)), measured[:4])
        unseen = process.expected(conditions.rows(np.asarray([4])))
        squares += ((unseen - truth[4]) ** 2).mean(), (truth[4] ** 2).mean()
    assert squares[0] < (0.95 if n_idle == 0 else 1.01) * squares[1]


def test_what_it_does_not_know_it_says() -> None:
    """The spread is right in size: 90 % of the truth is within 1.645 of them, give or take."""
    conditions, truth, shift = screen()
    out = conditions.cell_type == 0
    process = ShiftProcess.fit(conditions.rows(~out), shift[~out])
    asked = conditions.rows(out)
    responding = np.arange(N_GENES) < 30
    off = np.abs(process.expected(asked) - truth[out]) / process.spread(asked)
    assert 0.7 < (off[:, responding] < 1.645).mean() < 0.99
    assert (process.spread(asked) >= 0).all()
    known = process.spread(conditions.rows(~out))
    assert known.mean() < process.spread(asked).mean()


def test_no_perturbation_is_expected_to_do_exactly_nothing() -> None:
    conditions, _, shift = screen()
    process = ShiftProcess.fit(conditions, shift)
    nothing = Conditions(**{**vars(conditions), "p": np.zeros_like(conditions.p)})
    assert (process.expected(nothing) == 0.0).all()
    assert (process.spread(nothing) == 0.0).all()
    assert (process.usual_spread(nothing) == 0.0).all()


def test_of_nothing_asked_nothing_is_said() -> None:
    conditions, _, shift = screen()
    process = ShiftProcess.fit(conditions, shift)
    nobody = conditions.rows(np.zeros(0, np.int64))
    assert process.expected(nobody).shape == process.spread(nobody).shape == (0, N_GENES)


def test_noise_alone_is_believed_little() -> None:
    rng = np.random.default_rng(1)
    conditions, _, shift = screen()
    noise = rng.normal(size=shift.shape) / np.sqrt(40)
    found = ShiftProcess.fit(conditions, noise).expected(conditions)
    assert np.square(found).mean() < 0.1 * np.square(noise).mean()


def test_too_many_conditions_keep_the_largest_of_each_perturbation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conditions, truth, shift = screen()
    monkeypatch.setattr(shift_process, "MOST_TO_LEARN", 10)
    kind = np.unique(conditions.p, axis=0, return_inverse=True)[1].reshape(-1)
    kept = foremost(kind, conditions.n_cells, 20)
    assert len(kept) == 20
    assert (conditions.p[kept].sum(axis=0) >= 2).all()
    process = ShiftProcess.fit(conditions.rows(kept), shift[kept])
    assert error(process.expected(conditions), truth) < error(np.zeros_like(truth), truth)


def test_many_perturbations_do_not_hide_that_their_effects_hang_on_the_context() -> None:
    """More of them than conditions that are learnt from, each another in either cell type."""
    rng = np.random.default_rng(0)
    n_kinds, n_types = 300, 2
    kind, cell_type = np.divmod(np.arange(n_kinds * n_types), n_types)
    truth = rng.normal(size=(len(kind), 60))
    conditions = Conditions(
        np.eye(n_kinds)[kind],
        np.zeros(len(kind), np.int64),
        cell_type,
        np.full(len(kind), 100),
        np.full(len(kind), 10_000),
        *3 * [np.zeros((len(kind), 0))],
        np.ones(len(kind)),
    )
    shift = truth + rng.normal(size=truth.shape) / 10.0
    is_asked = (kind < 20) & (cell_type == 1)
    some = whole_perturbations(conditions.p, conditions.n_cells, 400)
    assert len(some) == 400
    assert (np.bincount(kind[some], minlength=n_kinds) != 1).all()
    process = ShiftProcess.fit(conditions.rows(np.flatnonzero(~is_asked)), shift[~is_asked])
    found = process.expected(conditions.rows(np.flatnonzero(is_asked)))
    assert np.sqrt((found**2).mean()) < 0.3, "what it does in the other type is no evidence"
    sure = process.spread(conditions.rows(np.flatnonzero(is_asked)))
    assert sure.mean() > 0.7


def test_a_perturbation_with_very_many_conditions_leaves_room_for_others() -> None:
    kind = np.repeat(np.arange(30), [500, *([3] * 29)])
    n_cells = np.arange(len(kind)) + 10
    some = whole_perturbations(np.eye(30)[kind], n_cells, 100)
    sizes = np.bincount(kind[some], minlength=30)
    assert len(some) <= 100
    assert sizes[0] == 5
    assert (sizes[1:] == 3).all()


def test_few_of_the_controls_share_no_more_noise_than_all_have() -> None:
    conditions, _, shift = screen()
    many = Conditions(**{**vars(conditions), "n_controls": np.full(len(conditions), 650)})
    few = Conditions(**{**vars(conditions), "n_controls": np.full(len(conditions), 20)})
    process = ShiftProcess.fit(many, shift)
    np.testing.assert_allclose(process.expected(few), process.expected(many))


def test_genes_fewer_than_groups_and_a_single_condition_are_enough() -> None:
    conditions, _, shift = screen()
    one = ShiftProcess.fit(conditions.rows(np.asarray([5])), shift[5:6, :7])
    assert np.isfinite(one.expected(conditions)).all()
