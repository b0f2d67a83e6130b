"""A perturbation in a region: what changes, what must not, and whether the truth is met."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data.canonical import rename_control
from cfmvc.data.config import SimulateConfig
from cfmvc.data.normalise import library_sizes, log_normalise
from cfmvc.data.simulate import Biology, simulate
from cfmvc.errors import DataError, UnknownLabelError
from cfmvc.models import Bundle
from cfmvc.stages import RegionChange, perturb_region
from tests.stages.conftest import fit, small_tissue

REGION = "10,60,20,90"


def changed(bundle: Bundle, cells: AnnData, perturbation: str = "A", **options) -> RegionChange:
    asked = {"region": REGION, "seed": 0, "n_steps": 3, **options}
    return perturb_region(bundle, cells, perturbation, **asked)


def dense(matrix: csr_matrix) -> np.ndarray:
    return matrix.toarray()


def controls_in_region(cells: AnnData) -> np.ndarray:
    x, y = cells.obsm["spatial"].T
    inside = (x >= 10) & (x <= 60) & (y >= 20) & (y <= 90)
    return inside & (cells.obs["perturbation"] == "control").to_numpy()


def test_controls_of_the_region_change_and_nothing_else(bundle: Bundle, tissue: AnnData) -> None:
    given_counts = dense(tissue.layers["counts"])
    change = changed(bundle, tissue)
    cells, expected = change.cells, controls_in_region(tissue)
    np.testing.assert_array_equal(change.is_changed, expected)
    assert list(cells.obs_names) == list(tissue.obs_names)
    assert list(cells.var_names) == list(tissue.var_names)
    np.testing.assert_array_equal(cells.obsm["spatial"], tissue.obsm["spatial"])
    counts = dense(cells.layers["counts"])
    np.testing.assert_array_equal(counts[~expected], given_counts[~expected])
    assert (counts[expected] != given_counts[expected]).any(1).mean() > 0.9
    assert (counts == np.round(counts)).all()
    assert (counts >= 0).all()
    assert (cells.obs["change"].to_numpy() > 0).tolist() == expected.tolist()
    in_region = cells.obs["in_region"].to_numpy()
    assert in_region.dtype == bool
    assert in_region.sum() > expected.sum()
    assert in_region[expected].all()
    # what was given stays as it was
    np.testing.assert_array_equal(dense(tissue.layers["counts"]), given_counts)
    assert "in_region" not in tissue.obs


def test_the_change_of_each_gene_is_stored_for_changed_cells_alone(
    bundle: Bundle, tissue: AnnData
) -> None:
    change = changed(bundle, tissue)
    layer = change.cells.layers["change"]
    assert layer.dtype == np.float32
    assert (np.diff(layer.indptr)[~change.is_changed] == 0).all()
    sizes = np.linalg.norm(dense(layer), axis=1)
    np.testing.assert_allclose(change.cells.obs["change"], sizes, rtol=1e-5)
    of_changed = dense(layer)[change.is_changed].mean(0)
    np.testing.assert_allclose(change.cells.var["mean_change"], of_changed, atol=1e-5)
    first = np.abs(of_changed)[change.cells.var_names.get_indexer(change.genes)]
    assert (np.diff(first) <= 1e-6).all()


def test_sampled_counts_change_as_expected_on_average(bundle: Bundle, tissue: AnnData) -> None:
    """The layer says what the counts do: over many draws they come to about the same."""
    draws = [changed(bundle, tissue, seed=seed) for seed in range(20)]
    told = np.mean([draw.cells.var["mean_change"] for draw in draws], axis=0)
    rows, library = draws[0].is_changed, bundle.median_library
    before = dense(log_normalise(tissue.layers["counts"], library))[rows].mean(0)
    after = [dense(log_normalise(draw.cells.layers["counts"], library)) for draw in draws]
    moved = np.mean([cells[rows].mean(0) for cells in after], axis=0) - before
    assert np.corrcoef(moved, told)[0, 1] > 0.9
    assert abs((told - moved).mean()) < 0.01


@pytest.mark.parametrize("source", ["control", "noise"])
@pytest.mark.parametrize(("perturbation", "dose"), [("control", None), ("A", 0.0), ("A+B", 0.0)])
def test_no_perturbation_changes_nothing_at_all(
    source: str, perturbation: str, dose: float | None, tissue: AnnData, models: dict[str, Bundle]
) -> None:
    change = changed(models[source], tissue, perturbation, dose=dose)
    assert change.is_changed.sum() > 10
    given_counts = tissue.layers["counts"]
    np.testing.assert_array_equal(dense(change.cells.layers["counts"]), dense(given_counts))
    assert change.cells.layers["change"].nnz == 0
    assert (change.cells.obs["change"] == 0).all()
    assert change.notes == ["no perturbation, or dose 0: nothing changes"]


@pytest.fixture(scope="module")
def models(bundle: Bundle) -> dict[str, Bundle]:
    return {"control": bundle, "noise": fit(small_tissue(), source="noise")}


def test_a_flow_from_noise_moves_the_cells_themselves(
    models: dict[str, Bundle], tissue: AnnData
) -> None:
    change = changed(models["noise"], tissue)
    before, after = dense(tissue.layers["counts"]), dense(change.cells.layers["counts"])
    rows = change.is_changed
    np.testing.assert_array_equal(after[~rows], before[~rows])
    assert (after[rows] != before[rows]).any(1).mean() > 0.5
    # a cell is nearer to itself than to others
    own = np.abs(after[rows] - before[rows]).sum(1)
    others = np.abs(after[rows] - np.roll(before[rows], 1, axis=0)).sum(1)
    assert own.mean() < others.mean()


def test_the_same_seed_gives_the_same_counts(bundle: Bundle, tissue: AnnData) -> None:
    one, two, other = (
        dense(changed(bundle, tissue, seed=seed).cells.layers["counts"]) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=4, max_size=4), st.integers(0, 5))
def test_wherever_the_region_is_the_rest_is_untouched(
    bundle: Bundle, ends: list[int], seed: int
) -> None:
    cells, (x0, x1), (y0, y1) = small_tissue(), sorted(ends[:2]), sorted(ends[2:])
    x, y = cells.obsm["spatial"].T
    in_region = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    is_control = (cells.obs["perturbation"] == "control").to_numpy()
    assume((in_region & is_control).any())
    change = changed(bundle, cells, region=f"{x0},{x1},{y0},{y1}", seed=seed)
    np.testing.assert_array_equal(change.cells.obs["in_region"], in_region)
    same = dense(change.cells.layers["counts"]) == dense(cells.layers["counts"])
    assert same[~(in_region & is_control)].all()


def test_changed_cells_are_controls_no_longer(bundle: Bundle, tissue: AnnData) -> None:
    change = changed(bundle, tissue, "A+B")
    labels = change.cells.obs["perturbation"].astype(str).to_numpy()
    before = tissue.obs["perturbation"].astype(str).to_numpy()
    assert set(labels[change.is_changed]) == {"A+B"}
    np.testing.assert_array_equal(labels[~change.is_changed], before[~change.is_changed])
    assert "dose" not in change.cells.obs
    dosed = changed(bundle, tissue, dose=0.5).cells.obs["dose"].to_numpy()
    assert set(dosed[change.is_changed]) == {0.5}
    assert set(dosed[before == "control"]) == {0.0, 0.5}
    assert set(dosed[before != "control"]) == {1.0}
    # so that a second perturbation elsewhere leaves them alone
    again = changed(bundle, change.cells, "B", region="0,100,0,100")
    assert not (again.is_changed & change.is_changed).any()
    assert again.cells.obs["in_region"].all()


def test_other_genes_and_another_order_are_no_matter(bundle: Bundle, tissue: AnnData) -> None:
    n_more = 3
    more = csr_matrix(np.random.default_rng(0).poisson(2.0, (tissue.n_obs, n_more)))
    both = csr_matrix(np.hstack([dense(tissue.layers["counts"]), more.toarray()]))
    names = [*tissue.var_names, "x", "y", "z"]
    order = np.random.default_rng(1).permutation(len(names))
    wide = AnnData(
        obs=tissue.obs,
        var=pd.DataFrame(index=np.asarray(names)[order]),
        layers={"counts": csr_matrix(both[:, order])},
        obsm={"spatial": tissue.obsm["spatial"]},
    )
    change, plain = changed(bundle, wide), changed(bundle, tissue)
    assert list(change.cells.var_names) == list(wide.var_names)
    unknown = wide.var_names.isin(["x", "y", "z"])
    np.testing.assert_array_equal(change.cells.var["is_predicted"], ~unknown)
    np.testing.assert_array_equal(
        dense(change.cells.layers["counts"])[:, unknown], dense(wide.layers["counts"])[:, unknown]
    )
    for layer in ("counts", "change"):
        np.testing.assert_array_equal(
            dense(change.cells[:, tissue.var_names].layers[layer]), dense(plain.cells.layers[layer])
        )
    assert change.genes == plain.genes
    assert "3 genes are unknown to the model, and stay as they are" in change.notes


def test_where_the_model_knows_no_place_it_says_so(placeless: Bundle, tissue: AnnData) -> None:
    change = changed(placeless, tissue)
    assert change.is_changed.any()
    assert change.notes[0].startswith("the model was trained without coordinates: place is no part")


def test_places_and_doses_that_were_never_seen_are_told(bundle: Bundle, tissue: AnnData) -> None:
    assert all("outside of the places" not in note for note in changed(bundle, tissue).notes)
    moved = tissue.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"] * 1000
    n = controls_in_region(tissue).sum()
    notes = changed(bundle, moved, region="1e4,6e4,2e4,9e4", dose=3.0).notes
    assert notes[0].startswith(f"{n} of {n} cells to change are outside of the places of the train")
    assert "the prediction there is a guess; are the units the same?" in notes[0]
    assert notes[1] == "A: dose 3 of 'A' is beyond the largest of the training, 1"


def test_twice_the_largest_dose_changes_about_twice_as_much(
    bundle: Bundle, tissue: AnnData
) -> None:
    """Of a model whose gate is strong, and whose response is so small that it is proportional."""
    model = copy.deepcopy(bundle.model)
    with torch.no_grad():
        model.context.perturbation.weight.mul_(10.0)
        model.context.gate[2].weight.mul_(20.0)
        model.field.mix.weight.mul_(1e-3)
    strong = replace(bundle, model=model)
    once, twice = (
        np.abs(changed(strong, tissue, dose=dose).cells.var["mean_change"]).sum()
        for dose in (1.0, 2.0)
    )
    assert 1.5 < twice / once < 2.5


def without_places(cells: AnnData) -> None:
    del cells.obsm["spatial"]


def with_unknown(column: str) -> Callable[[AnnData], None]:
    def change(cells: AnnData) -> None:
        labels = cells.obs[column].astype(str).to_numpy(dtype=object)
        labels[controls_in_region(cells)] = "new"
        cells.obs[column] = labels

    return change


def with_depth(cells: AnnData) -> None:
    cells.obsm["spatial"] = np.hstack([cells.obsm["spatial"]] * 2)[:, :3]


@pytest.mark.parametrize(
    ("edit", "options", "error", "message"),
    [
        (without_places, {}, DataError, "no coordinates (obsm['spatial'], 2 or 3 columns)"),
        (with_depth, {}, DataError, "have 3 coordinates, those of the training had 2"),
        (None, {"region": "200,300,0,1"}, DataError, "none of 300 cells is in it; the coordinates"),
        (None, {"region": "obs:perturbation=B"}, DataError, "none is a control ('control')"),
        (None, {"region": "0,1,0,1,0,1"}, DataError, "has 3 coordinates, the cells have 2"),
        (with_unknown("batch"), {}, UnknownLabelError, "unknown batch 'new'; the model knows 'b1'"),
        (with_unknown("cell_type"), {}, UnknownLabelError, "unknown cell type 'new'"),
        (None, {"perturbation": "C"}, UnknownLabelError, "unknown perturbation 'C'; the model"),
        (None, {"perturbation": "A+C"}, UnknownLabelError, "unknown perturbation 'C'"),
        (None, {"dose": -1.0}, DataError, "negative or not finite"),
    ],
)
def test_faults_are_named(
    edit: Callable[[AnnData], None] | None,
    options: dict,
    error: type[Exception],
    message: str,
    bundle: Bundle,
    tissue: AnnData,
) -> None:
    if edit is not None:
        edit(tissue)
    with pytest.raises(error) as caught:
        changed(bundle, tissue, **options)
    assert message in str(caught.value)


def test_a_stratum_unknown_elsewhere_is_no_matter(bundle: Bundle, tissue: AnnData) -> None:
    labels = tissue.obs["cell_type"].astype(str).to_numpy(dtype=object)
    labels[~controls_in_region(tissue)] = "new"
    tissue.obs["cell_type"] = labels
    assert changed(bundle, tissue).is_changed.any()


def test_a_model_without_a_flow_is_refused(bundle: Bundle, tissue: AnnData) -> None:
    half = Bundle(bundle.model, bundle.vocabulary, bundle.gene_names, 1.0, {"vae": {}})
    with pytest.raises(DataError, match="no trained flow"):
        changed(half, tissue)


def test_three_coordinates(tissue: AnnData) -> None:
    deep = small_tissue(n_coordinates=3)
    model = fit(deep)
    change = changed(model, deep, region="0,100,0,100,0,30")
    np.testing.assert_array_equal(change.cells.obs["in_region"], deep.obsm["spatial"][:, 2] <= 30)


def test_another_label_of_the_control(tissue: AnnData, bundle: Bundle) -> None:
    tissue.uns["cfmvc"] = {"control": "control"}
    rename_control(tissue, "NT")
    with pytest.raises(DataError, match="none is a control"):
        changed(bundle, tissue)


# -- against the truth --------------------------------------------------------------------------

SIMULATED = {
    **{"n_cells": 2000, "n_genes": 100, "n_batches": 2, "n_cell_types": 2, "n_perturbations": 2},
    **{"n_combinations": 0, "n_interactive": 0, "spatial": True, "control_fraction": 0.5},
    "perturbed_fraction": 0.2,
}


def simulated() -> tuple[SimulateConfig, AnnData]:
    values = {**read_yaml(default_params_file())["simulate"], **SIMULATED}
    config = parse_section(SimulateConfig, values, "simulate")
    cells, _ = simulate(config)
    cells.obsm["spatial"] = cells.obsm["spatial"].astype(np.float32)
    return config, cells


def true_change(config: SimulateConfig, cells: AnnData, perturbation: int) -> np.ndarray:
    """Return how the mean log expression of such cells differs in truth, ``(n_genes,)``."""
    biology, rng = Biology.draw(config), np.random.default_rng(0)
    total, x = np.zeros(config.n_genes), cells.obsm["spatial"][:, 0]
    depths = library_sizes(cells.layers["counts"])
    strata = cells.obs.groupby(["batch", "cell_type"], observed=True).size()
    for (batch, cell_type), n_cells in strata.items():
        covariates = int(batch[-1]) - 1, int(cell_type[-1]) - 1
        state = biology.type_state[covariates[1]] + rng.normal(size=(4000, config.n_programmes))
        place, depth = rng.choice(x, 4000), rng.choice(depths, 4000)[:, None]
        for p, sign in ((perturbation, 1.0), (0, -1.0)):
            mean = depth * biology.proportions(p, *covariates, 1.0, state, place)
            counts = rng.poisson(rng.gamma(biology.theta, mean / biology.theta))
            logged = np.log1p(config.median_library / depth * counts)
            total += sign * n_cells * logged.mean(0)
    return total / len(cells)


@pytest.mark.slow
def test_the_change_in_a_region_is_the_true_one() -> None:
    torch.manual_seed(0)
    config, cells = simulated()
    model = fit(cells, n_epochs=40, hidden_dim=64)
    for number, label in ((1, "P1"), (2, "P2")):
        change = changed(model, cells, label, region="circle:0.6,0.5,0.3", n_steps=10)
        truth = true_change(config, cells[change.is_changed], number)
        told = change.cells.var["mean_change"].to_numpy()
        r, strength = np.corrcoef(told, truth)[0, 1], told @ truth / (truth @ truth)
        print(f"{label}: correlation {r:.2f}, strength {strength:.2f}")
        assert r > 0.85
        strongest = np.argsort(-np.abs(truth))[:10]
        assert len(set(change.genes[:20]) & set(cells.var_names[strongest])) >= 7


@pytest.mark.slow
def test_a_response_that_hangs_on_the_place_is_mapped_to_it() -> None:
    """Where x < 0.5 the perturbed cells are controls with another label: nothing happens there."""
    config, cells = simulated()
    is_left, rng = cells.obsm["spatial"][:, 0] < 0.5, np.random.default_rng(0)
    labels = cells.obs["perturbation"].astype(str).to_numpy(dtype=object)
    is_kept = ~is_left | (labels == "control")
    renamed = is_left & (rng.random(len(labels)) < 0.5)
    labels[renamed] = rng.choice(["P1", "P2"], renamed.sum())
    cells.obs["perturbation"] = pd.Categorical(labels)
    cells = cells[is_kept].copy()
    model = fit(cells, n_epochs=60, hidden_dim=64)
    strength = {}
    for region in ("0,0.4,0,1", "0.6,1,0,1"):
        change = changed(model, cells, "P1", region=region, n_steps=10)
        truth = true_change(config, cells[change.is_changed], 1)
        told = change.cells.var["mean_change"].to_numpy()
        strength[region] = float(told @ truth / (truth @ truth))
    print(f"strength by region: {strength}")
    assert strength["0.6,1,0,1"] > 0.5
    assert strength["0,0.4,0,1"] < 0.6 * strength["0.6,1,0,1"]
