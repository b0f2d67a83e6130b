"""The simulator keeps the promises of its docstring, measured on what it draws."""

from pathlib import Path

import numpy as np
import pytest

from cfmvc.config import parse_section
from cfmvc.data.canonical import canonicalise, write_canonical
from cfmvc.data.checks import check_cells
from cfmvc.data.config import DataConfig, SimulateConfig
from cfmvc.data.simulate import Biology, simulate
from cfmvc.errors import ConfigError
from cfmvc.files import md5_of_file

SMALL = {
    "n_cells": 600,
    "n_genes": 40,
    "n_batches": 2,
    "n_cell_types": 3,
    "n_perturbations": 3,
    "n_combinations": 2,
    "n_interactive": 1,
    "interaction": "own",
    "doses": [],
    "half_dose": None,
    "spatial": False,
    "embedding_dim": 0,
    "control_fraction": 0.3,
    "median_library": 1000,
    "library_spread": 0.3,
    "inverse_dispersion": 4.0,
    "n_programmes": 3,
    "programme_effect": 0.4,
    "cell_type_effect": 1.0,
    "batch_effect": 0.2,
    "perturbed_fraction": 0.3,
    "perturbation_effect": 0.8,
    "specific_effect": 0.3,
    "interaction_effect": 0.8,
    "seed": 0,
}


def sized(**changes) -> SimulateConfig:
    return parse_section(SimulateConfig, {**SMALL, **changes}, "simulate")


def test_same_seed_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, config in (("a", sized()), ("b", sized()), ("c", sized(seed=1))):
        cells, truth = simulate(config)
        write_canonical(cells, tmp_path / f"{name}.h5ad")
        write_canonical(truth, tmp_path / f"{name}_truth.h5ad")
    for kind in (".h5ad", "_truth.h5ad"):
        a, b, c = (md5_of_file(tmp_path / f"{name}{kind}") for name in "abc")
        assert a == b != c


@pytest.mark.parametrize("changes", [{}, {"doses": [0.5, 2.0], "spatial": True}])
def test_cells_are_canonical_and_keep_the_contract(changes, config: DataConfig) -> None:
    cells, truth = simulate(sized(n_cells=1500, **changes))
    assert check_cells(cells, config) == []
    same = canonicalise(cells, config)
    assert (same.layers["counts"] != cells.layers["counts"]).nnz == 0
    assert list(same.obs) == list(cells.obs)
    # the truth has every condition, and its sizes are those of the cells
    n_doses = max(1, len(changes.get("doses", [])))
    assert truth.n_obs == (1 + 5 * n_doses) * 2 * 3
    assert truth.obs["n_cells"].sum() == 1500
    np.testing.assert_allclose(truth.layers["mean"].sum(axis=1), 1000, rtol=1e-4)
    assert ("dose" in cells.obs) == bool(changes)
    assert ("spatial" in cells.obsm) == bool(changes)


@pytest.mark.parametrize("changes", [{}, {"doses": [0.5, 1.5], "spatial": True}])
def test_the_mean_of_many_cells_approaches_the_truth(changes) -> None:
    """Proportions of many cells of a condition, against the truth, within five standard errors."""
    cells, truth = simulate(sized(n_cells=20_000, library_spread=0.0, **changes))
    keys = ["perturbation", "batch", "cell_type", *(["dose"] if changes else [])]
    groups = cells.obs.groupby(keys, observed=True).indices
    scores = []
    for row, key in enumerate(truth.obs[keys].itertuples(index=False, name=None)):
        counts = cells.layers["counts"][groups[key]].toarray()
        error = counts.std(axis=0, ddof=1) / np.sqrt(len(counts))
        # 1 % of slack: the truth itself is an average over 1,024 states
        slack = error + 0.01 * truth.layers["mean"][row]
        scores.append(np.abs(counts.mean(axis=0) - truth.layers["mean"][row]) / slack)
    assert np.max(scores) < 5
    assert np.median(scores) < 1


def test_counts_are_negative_binomial() -> None:
    """Without other sources of spread, variance is mean + mean^2 / theta, gene by gene."""
    quiet = sized(
        n_cells=30_000, n_genes=12, n_batches=1, n_cell_types=1, n_perturbations=1,
        n_combinations=0, n_interactive=0, programme_effect=0.0, perturbation_effect=0.0,
        specific_effect=0.0, library_spread=0.0,
    )  # fmt: skip
    counts = simulate(quiet)[0].layers["counts"].toarray()
    mean, theta = counts.mean(axis=0), Biology.draw(quiet).theta
    np.testing.assert_allclose(counts.var(axis=0), mean + mean**2 / theta, rtol=0.1)


def test_library_sizes_are_log_normal() -> None:
    cells, _ = simulate(sized(n_cells=5000, median_library=5000, inverse_dispersion=1000.0))
    log_library = np.log(np.asarray(cells.layers["counts"].sum(axis=1)).ravel())
    assert np.median(log_library) == pytest.approx(np.log(5000), abs=0.03)
    assert log_library.std() == pytest.approx(0.3, abs=0.03)


def shift_of(biology: Biology, label: int) -> np.ndarray:
    """Shift of log rates of a cell in the middle, less the constant of the softmax."""
    state, x = np.zeros((1, len(biology.programmes))), np.zeros(1)
    log = np.log(biology.proportions(label, 0, 0, 1.0, state, x)[0])
    shift = log - np.log(biology.proportions(0, 0, 0, 1.0, state, x)[0])
    return np.asarray(shift - np.median(shift))


@pytest.mark.parametrize("interaction", ["own", "limited", "company"])
def test_additive_combinations_add_and_interactive_ones_do_not(interaction: str) -> None:
    """On the scale of log rates, where responses add; one gene's share cancels in differences."""
    changes = {"n_genes": 60, "n_perturbations": 4, "interaction": interaction}
    biology = Biology.draw(sized(**changes))

    def shift(label: int) -> np.ndarray:
        return shift_of(biology, label)

    labels = biology.labels
    for number, label in enumerate(labels):
        if "+" in label:
            parts = [labels.index(part) for part in label.split("+")]
            rest = shift(number) - sum(shift(part) for part in parts)
            spread = np.ptp(rest - np.median(rest))
            assert (spread > 0.5) == biology.is_interactive(number)
            if not biology.is_interactive(number):
                assert spread < 1e-9
    assert [biology.is_interactive(i) for i in range(len(labels))].count(True) == 1


def test_limited_responses_stop_at_the_limit_and_small_ones_add() -> None:
    """Also those of single perturbations: before the limit all of them add."""
    changes = {"n_genes": 200, "n_interactive": 2, "interaction": "limited"}
    biology = Biology.draw(sized(**changes, interaction_effect=0.5, perturbed_fraction=0.1))
    labels = biology.labels
    for number in (labels.index(label) for label in labels if "+" in label):
        parts = [labels.index(part) for part in labels[number].split("+")]
        limited = [shift_of(biology, part) for part in parts]
        before = sum(0.5 * np.arctanh(one / 0.5) for one in limited)
        found = shift_of(biology, number)
        np.testing.assert_allclose(found, 0.5 * np.tanh(before / 0.5), atol=1e-6)
        assert np.abs(before).max() > 1.0
        assert np.abs(found - sum(limited)).max() > 0.05


def test_in_company_a_part_does_the_same_in_all_interactive_combinations() -> None:
    changes = {"n_genes": 400, "n_combinations": 3, "n_interactive": 3, "n_batches": 1}
    biology = Biology.draw(sized(**changes, interaction="company"))
    labels = biology.labels
    assert biology.pairs == ((0, 1), (0, 2), (1, 2))

    def rest(label: str) -> np.ndarray:
        parts = [shift_of(biology, labels.index(part)) for part in label.split("+")]
        return shift_of(biology, labels.index(label)) - sum(parts)

    # Of three sums of two each of the three is told: the genes that P1 moves in company.
    of_first = 0.5 * (rest("P1+P2") + rest("P1+P3") - rest("P2+P3"))
    is_moved = np.abs(of_first) > 1e-9
    assert is_moved.mean() == pytest.approx(0.3, abs=0.08)
    assert of_first[is_moved].std() == pytest.approx(0.8, abs=0.15)


@pytest.mark.parametrize(
    ("n_combinations", "n_interactive", "pairs"),
    [
        (4, 3, ((0, 1), (0, 2), (1, 2), (3, 4))),
        (4, 1, ((0, 1), (2, 3), (2, 4), (3, 4))),
        (6, 6, None),
    ],
)
def test_in_company_the_parts_tell_which_combination_interacts(
    n_combinations: int, n_interactive: int, pairs: tuple[tuple[int, int], ...] | None
) -> None:
    changes = {"n_combinations": n_combinations, "n_interactive": n_interactive}
    biology = Biology.draw(sized(**changes, n_perturbations=5, interaction="company"))
    if pairs is not None:
        assert biology.pairs == pairs
    assert len(set(biology.pairs)) == n_combinations
    kinds = {True: set(), False: set()}
    for number, pair in enumerate(biology.pairs):
        kinds[biology.is_interactive(1 + 5 + number)].update(pair)
    assert not kinds[True] & kinds[False]


def test_strength_can_be_read_from_the_state_and_the_dose() -> None:
    config = sized(specific_effect=0.0)
    biology = Biology.draw(config)
    along = biology.receptor[:1] * np.asarray([[-3.0], [0.0], [3.0]])
    gene = int(np.argmax(np.abs(biology.shared[0])))
    other = int(np.argmin(np.abs(biology.shared[0])))

    def response(dose: float) -> np.ndarray:
        x = np.zeros(3)
        ratio = biology.proportions(1, 0, 0, dose, along, x) / biology.proportions(
            0, 0, 0, dose, along, x
        )
        return np.log(ratio[:, gene] / ratio[:, other])

    at_one = response(1.0)
    assert abs(at_one[0]) < abs(at_one[1]) < abs(at_one[2])
    np.testing.assert_allclose(at_one[1], biology.shared[0, gene], rtol=1e-9)
    np.testing.assert_allclose(response(2.0), 2 * at_one, rtol=1e-9)


def test_a_dose_of_half_of_the_response_differs_between_perturbations() -> None:
    config = sized(doses=[1.0, 100.0], half_dose=10.0, n_perturbations=200, specific_effect=0.0)
    biology = Biology.draw(config)
    assert biology.half_dose is not None
    assert np.median(np.log10(biology.half_dose)) == pytest.approx(1.0, abs=0.1)
    assert np.std(np.log10(biology.half_dose)) == pytest.approx(0.5, abs=0.1)
    state, x = np.zeros((1, config.n_programmes)), np.zeros(1)

    def response(label: int, dose: float) -> np.ndarray:
        log = np.log(biology.proportions(label, 0, 0, dose, state, x)[0])
        shift = log - np.log(biology.proportions(0, 0, 0, 0.0, state, x)[0])
        return np.asarray(shift - np.median(shift))

    whole, half = response(1, 1e12), float(biology.half_dose[0])
    np.testing.assert_allclose(response(1, half), whole / 2.0, atol=1e-9)
    np.testing.assert_allclose(response(1, half / 9.0), whole / 10.0, atol=1e-9)
    pair = 1 + len(biology.shared)
    parts = [np.mean([9.0 / (9.0 + biology.half_dose[part]) for part in biology.pairs[0]])]
    np.testing.assert_allclose(response(pair, 9.0), parts[0] * response(pair, 1e12), atol=1e-9)


def test_coordinates_carry_a_gradient() -> None:
    cells, _ = simulate(sized(n_cells=4000, spatial=True))
    biology = Biology.draw(sized(n_cells=4000, spatial=True))
    counts = cells.layers["counts"].toarray()
    share = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1000)
    x = cells.obsm["spatial"][:, 0]
    slope = np.asarray([np.corrcoef(x, column)[0, 1] for column in share.T])
    strongest = int(np.argmax(np.abs(biology.gradient)))
    assert np.sign(slope[strongest]) == np.sign(biology.gradient[strongest])
    assert abs(slope[strongest]) > 0.1
    assert np.ptp(x) > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_combinations": 4}, "n_combinations: 3 perturbations have 3 pairs"),
        ({"n_interactive": 3}, "n_interactive: more than n_combinations"),
        ({"doses": [1.0, -1.0]}, "doses: must be positive numbers"),
        ({"interaction": "limited", "interaction_effect": 0.0}, "interaction_effect: must be"),
        (
            {"interaction": "company"},
            "3 are too few for 1 interactive combinations of some and 1 additive ones of others",
        ),
        ({"interaction": "any"}, "simulate.interaction"),
        ({"half_dose": 0.0}, "simulate.half_dose"),
        ({"n_cells": 0}, "simulate.n_cells"),
        ({"control_fraction": 1.0}, "simulate.control_fraction"),
    ],
)
def test_impossible_requests_are_refused(changes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sized(**changes)
