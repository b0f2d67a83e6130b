"""The mean response: learnt from means, stored without loss, and nothing for no perturbation."""

from itertools import combinations

import numpy as np
import pytest
from safetensors.torch import load, save
from scipy.sparse import csr_matrix

from cfmvc.flow.state_slopes import PairedCells, PairGroup
from cfmvc.models import condition_means
from cfmvc.models.condition_means import ConditionMeans, remembered
from cfmvc.models.mean_response import AskedShifts, MeanResponse

N_GENES, N_TYPES = 60, 5


def means(seed: int = 0) -> tuple[ConditionMeans, np.ndarray]:
    """Controls and two perturbations in five cell types of two batches, and the truth."""
    rng = np.random.default_rng(seed)
    level = rng.normal(1.0, 0.5, (N_TYPES, N_GENES))
    effect = np.concatenate([np.zeros((1, N_GENES)), rng.normal(0, 1.0, (2, N_GENES))])
    kind, batch, cell_type = (
        part.ravel() for part in np.meshgrid(range(3), range(2), range(N_TYPES), indexing="ij")
    )
    truth = level[cell_type] + effect[kind]
    p = np.asarray([[0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])[kind]
    n_cells = np.full(len(kind), 50)
    measured = truth + 0.5 * rng.normal(size=truth.shape) / np.sqrt(50)
    return ConditionMeans(p, batch, cell_type, n_cells, measured), effect


def fitted(cells: ConditionMeans) -> MeanResponse:
    response = MeanResponse.fit(cells, np.full(N_GENES, 0.5), np.zeros((3, 0)))
    assert response is not None
    return response


def levels_and_axis(cells: ConditionMeans) -> tuple[np.ndarray, np.ndarray]:
    """Mean controls of the cell types, and what they differ in most."""
    controls = ~cells.p.any(1)
    levels = [cells.means[controls & (cells.cell_type == t)].mean(0) for t in range(N_TYPES)]
    centred = np.stack(levels) - np.mean(levels, axis=0)
    return centred, np.linalg.svd(centred, full_matrices=False)[2][0]


def pairs_of(cells: ConditionMeans, seed: int = 0) -> PairedCells:
    """Cells of the first drug, whose change follows the first principal component of the types."""
    rng, axis = np.random.default_rng(seed), levels_and_axis(cells)[1]
    state = rng.normal(size=(800, 1))
    before = 2.0 + state * axis + 0.1 * rng.normal(size=(800, N_GENES))
    after = before + state * np.arange(N_GENES) / N_GENES
    rows = np.arange(800)
    group = PairGroup(np.asarray([0, 1.0, 0]), rows, 800 + rows)
    return PairedCells(csr_matrix(np.vstack([before, after])), [group])


def asked(response: MeanResponse, p: list[float], batch: int = 0, cell_type: int = 2) -> np.ndarray:
    known = response.controls_of(batch, cell_type)
    assert known is not None
    where = (np.asarray([batch]), np.asarray([cell_type]))
    controls = known[0][None], np.asarray([known[1]])
    return response.expected(AskedShifts(np.asarray([p]), *where, *controls))[0]


def test_expects_the_effect_where_it_was_not_measured() -> None:
    cells, effect = means()
    is_out = (cells.p[:, 1] > 0) & (cells.cell_type == 2)
    seen = ConditionMeans(**{name: values[~is_out] for name, values in vars(cells).items()})
    found = asked(fitted(seen), [0, 1.0, 0])
    assert np.abs(found - effect[1]).mean() < 0.1


def test_perturbations_together_make_no_high_level_the_lower_one() -> None:
    """Each takes more than half of what controls differ in: together not more than all of it."""
    cells, effect = means()
    level = cells.means[~cells.p.any(1)].mean(0)
    for column in (1, 2):
        rows = cells.p[:, column] > 0
        cells.means[rows] -= 0.8 * (cells.means[rows] - effect[column] - level)
    response = fitted(cells)
    p, where = np.asarray([[0, 1.0, 1.0]] * 2), (np.zeros(2, int), np.full(2, 7))
    controls = np.stack([level - 1.0, level + 1.0])
    shift = response.expected(AskedShifts(p, *where, controls, np.full(2, 50)))
    assert ((controls + shift)[1] - (controls + shift)[0] > -0.3).all()


def test_of_measured_combinations_others_that_nobody_saw_are_told() -> None:
    """They do six tenths of their sum, and what each part does in company alone."""
    rng = np.random.default_rng(0)
    pairs = [np.eye(7)[list(pair)].sum(0) for pair in combinations(range(1, 7), 2)]
    p = np.vstack([np.zeros((1, 7)), np.eye(7)[1:], pairs])
    alone, in_company = rng.normal(size=(7, N_GENES)), 0.3 * rng.normal(size=(7, N_GENES))
    is_pair = (p.sum(1) > 1)[:, None]
    truth = np.where(is_pair, 0.6 * (p @ alone) + p @ in_company, p @ alone)
    where, n_cells = np.zeros(len(p), np.int64), np.full(len(p), 200)
    measured = 1.0 + truth + 0.5 * rng.normal(size=truth.shape) / np.sqrt(200)
    seen = np.ones(len(p), bool)
    seen[-1] = False
    cells = ConditionMeans(p[seen], where[seen], where[seen], n_cells[seen], measured[seen])
    response = MeanResponse.fit(cells, np.full(N_GENES, 0.5), np.zeros((7, 0)))
    assert response is not None
    assert response.gain[0] == pytest.approx(0.6, abs=0.1)
    again = MeanResponse.from_tensors(load(save(response.as_tensors())))
    for known in (response, again):
        found = asked(known, p[-1].tolist(), 0, 0)
        off = np.square(found - truth[-1]).mean()
        assert off < 0.1 * np.square(p[-1] @ alone - truth[-1]).mean(), "the sum of its parts"
        np.testing.assert_allclose(asked(known, p[1].tolist(), 0, 0), alone[1], atol=0.2)
    is_single = cells.p.sum(1) < 2
    singles = ConditionMeans(**{name: values[is_single] for name, values in vars(cells).items()})
    none_seen = MeanResponse.fit(singles, np.full(N_GENES, 0.5), np.zeros((7, 0)))
    assert none_seen is not None
    np.testing.assert_allclose(asked(none_seen, p[-1].tolist(), 0, 0), p[-1] @ alone, atol=0.4)


def test_genes_that_depart_from_the_curve_of_all_are_told_and_intervals_hold_them() -> None:
    """Half of the genes rise faster than the dose, and half slower: no single curve is theirs."""
    rng, n_genes, doses = np.random.default_rng(0), 400, np.asarray([0.0, 0.25, 0.5, 0.75, 1.0])
    power = np.where(np.arange(n_genes) % 2, 2.0, 0.5)
    truth = rng.normal(size=n_genes) * doses[:, None] ** power
    where, n_cells = np.zeros(5, np.int64), np.full(5, 200)
    measured = 1.0 + truth + 0.5 * rng.normal(size=truth.shape) / np.sqrt(200)
    seen = doses != 0.5
    p = np.stack([np.zeros(5), doses], axis=1)
    cells = ConditionMeans(p[seen], where[seen], where[seen], n_cells[seen], measured[seen])
    response = MeanResponse.fit(cells, np.full(n_genes, 0.5), np.zeros((2, 0)))
    assert response is not None
    found = asked(response, [0.0, 0.5], 0, 0)
    at_one = asked(response, [0.0, 1.0], 0, 0)
    assert np.square(found - truth[2]).mean() < 0.25 * np.square(0.5 * at_one - truth[2]).mean()
    known = response.controls_of(0, 0)
    assert known is not None
    one = AskedShifts(p[[2]], where[:1], where[:1], known[0][None], n_cells[:1])
    from_measured = truth[2] - (measured[0] - 1.0)
    within = np.abs(found - from_measured) < 1.645 * response.uncertainty(one)[0]
    assert 0.8 < within.mean() < 0.97


def test_no_perturbation_is_exactly_nothing() -> None:
    response = fitted(means()[0])
    assert (asked(response, [0.0, 0.0, 0.0]) == 0.0).all()


def test_noise_of_controls_is_known_by_other_batches_where_no_shift_tells_it() -> None:
    cells, _ = means()
    noisy = cells.means.copy()
    row = np.flatnonzero(~cells.p.any(1) & (cells.batch == 0) & (cells.cell_type == 2))
    noise = 0.5 / np.sqrt(5) * np.random.default_rng(1).normal(size=N_GENES)
    noisy[row] += noise
    is_out = (cells.batch == 0) & (cells.cell_type == 2) & cells.p.any(1)
    few = np.where(np.arange(len(is_out)) == row, 5, cells.n_cells)
    given = {**vars(cells), "means": noisy, "n_cells": few}

    def corrected(seen: dict[str, np.ndarray], p: list[float]) -> np.ndarray:
        response = fitted(ConditionMeans(**seen))
        where = (np.asarray([0]), np.asarray([2]))
        return response.corrections(AskedShifts(np.asarray([p]), *where, noisy[row], few[row]))[0]

    apart = {name: values[~is_out] for name, values in given.items()}
    found = corrected(apart, [0, 1.0, 0])
    assert np.abs(noise + found).mean() < 0.7 * np.abs(noise).mean()
    assert (corrected(apart, [0, 0.0, 0]) == 0.0).all()
    assert (corrected(given, [0, 1.0, 0]) == 0.0).all()


@pytest.mark.parametrize("has_others", [True, False])
def test_the_noise_of_controls_is_uncertain_at_whatever_dose(has_others: bool) -> None:
    """A small dose does nothing, and a shift from noisy controls is not known for that.

    Of the third stratum no shift was measured; other batches of its cell type tell of its controls.
    """
    rng, n_genes, n = np.random.default_rng(0), 2000, 50
    doses = np.asarray([0.0, 0.01, 0.1, 1.0] * 2 + [0.0])
    batch, cell_type = np.repeat([0, 1, 2], [4, 4, 1]), np.zeros(9, np.int64)
    if not has_others:
        cell_type[-1] = 1
    truth = doses[:, None] * rng.normal(size=n_genes)
    measured = 1.0 + truth + 0.5 * rng.normal(size=truth.shape) / np.sqrt(n)
    p, n_cells = np.stack([np.zeros(9), doses], axis=1), np.full(9, n)
    cells = ConditionMeans(p, batch, cell_type, n_cells, measured)
    response = MeanResponse.fit(cells, np.full(n_genes, 0.5), np.zeros((2, 0)))
    assert response is not None
    for stratum, row in ((0, 0), (2, 8)):
        noise = measured[row] - 1.0
        where = np.asarray([stratum] * 3), np.repeat(cell_type[row], 3)
        asked_doses = np.asarray([[0.0, 0.0], [0.0, 1e-9], [0.0, 0.05]])
        some = AskedShifts(asked_doses, *where, measured[[row] * 3], n_cells[:3])
        found = response.expected(some) + response.corrections(some)
        sd = response.uncertainty(some)
        assert not found[0].any()
        assert not sd[0].any()
        for dose in (1, 2):
            off = asked_doses[dose, 1] * truth[3] - noise - found[dose]
            assert 0.85 < (np.abs(off) < 1.645 * sd[dose]).mean() < 0.96
    grown = response.uncertainty(some)[1].mean() / (0.5 / np.sqrt(n))
    assert grown == pytest.approx(1.0 if not has_others else np.sqrt(1 / 3), abs=0.1)


def test_doses_count_relative_to_the_largest() -> None:
    cells, _ = means()
    large = ConditionMeans(**{**vars(cells), "p": 1000.0 * cells.p})
    np.testing.assert_allclose(
        asked(fitted(large), [0, 1000.0, 0]), asked(fitted(cells), [0, 1.0, 0]), rtol=1e-9
    )


def test_a_drug_that_is_given_in_small_doses_counts_as_much() -> None:
    cells, _ = means()
    units = np.asarray([1.0, 0.01, 30.0])
    other = ConditionMeans(**{**vars(cells), "p": cells.p * units})
    for p in ([0, 1.0, 0], [0, 0, 1.0], [0, 1.0, 1.0]):
        there = asked(fitted(other), (units * p).tolist())
        np.testing.assert_allclose(there, asked(fitted(cells), p), rtol=1e-9)


def test_a_file_gives_back_the_same() -> None:
    cells, _ = means()
    spread, none = np.full(N_GENES, 0.5), np.zeros((3, 0))
    response = MeanResponse.fit(cells, spread, none, pairs_of(cells))
    assert response is not None
    assert response.by_state.slope.any()
    again = MeanResponse.from_tensors(load(save(response.as_tensors())))
    for p in ([0, 1.0, 0], [0, 0, 1.0], [0, 1.0, 1.0]):
        np.testing.assert_array_equal(asked(again, p), asked(response, p))


def test_where_nothing_was_measured_nothing_is_known() -> None:
    cells, _ = means()
    controls = ~cells.p.any(axis=1)
    alone = ConditionMeans(**{name: values[controls] for name, values in vars(cells).items()})
    assert MeanResponse.fit(alone, np.ones(N_GENES), np.zeros((3, 0))) is None
    assert fitted(cells).controls_of(0, 99) is None


def test_the_largest_conditions_of_each_perturbation_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cells, _ = means()
    monkeypatch.setattr(condition_means, "MOST_CONDITIONS", 4)
    sizes = np.arange(len(cells.n_cells)) + 20
    kind = cells.p @ np.arange(3)
    strata = np.stack([cells.batch, cells.cell_type], axis=1)
    rows = remembered(kind, kind == 0, strata, sizes)
    cells = ConditionMeans(**{**vars(cells), "n_cells": sizes})
    response = fitted(ConditionMeans(**{name: held[rows] for name, held in vars(cells).items()}))
    kept = response.process.conditions
    assert len(kept) == 4
    assert response.columns.tolist() == [False, True, True]
    for column in (1, 2):
        largest = np.sort(sizes[cells.p[:, column] > 0])[-2:]
        np.testing.assert_array_equal(kept.n_cells[kept.p[:, column] > 0], largest)


def test_uncertainty_grows_with_the_distance_from_what_was_measured() -> None:
    cells, _ = means()
    is_out = (cells.p[:, 1] > 0) & (cells.cell_type == 2)
    seen = ConditionMeans(**{name: values[~is_out] for name, values in vars(cells).items()})
    response = fitted(seen)
    mean, n = response.controls_of(0, 2) or (np.zeros(0), 0)
    where, size = (np.asarray([0]), np.asarray([2])), np.asarray([n])
    spread = {
        kind: response.uncertainty(AskedShifts(np.asarray([p]), *where, mean[None], size)).mean()
        for kind, p in (("unseen", [0, 1.0, 0]), ("seen", [0, 0, 1.0]), ("none", [0, 0, 0.0]))
    }
    assert spread["none"] == 0.0 < spread["seen"] < spread["unseen"]


def test_cells_tell_how_a_cell_type_responds_that_is_unlike_those_that_were_perturbed() -> None:
    cells, effect = means()
    pairs = pairs_of(cells)
    levels, axis = levels_and_axis(cells)
    state = levels @ axis
    extreme = int(np.abs(state).argmax())
    more = state[cells.cell_type, None] * np.arange(N_GENES) / N_GENES * (cells.p[:, 1:2] > 0)
    # Two types that are much alike tell by themselves little of one that is far from both.
    is_like = np.isin(cells.cell_type, np.abs(state).argsort()[:2])
    is_out = (cells.p[:, 1] > 0) & ~is_like
    given = {**vars(cells), "means": cells.means + more}
    seen = ConditionMeans(**{name: values[~is_out] for name, values in given.items()})
    truth = effect[1] + state[extreme] * np.arange(N_GENES) / N_GENES

    def error(known: PairedCells | None) -> float:
        response = MeanResponse.fit(seen, np.full(N_GENES, 0.5), np.zeros((3, 0)), known)
        assert response is not None
        found = asked(response, [0, 1.0, 0], cell_type=extreme)
        return float(np.square(found - truth).mean())

    assert error(pairs) < 0.3 * error(None)
