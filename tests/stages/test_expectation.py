"""Virtual cells have the mean that related conditions let expect, and controls stay as they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData, read_h5ad

from cfmvc.config import default_params_file, override, parse_section, read_yaml
from cfmvc.data.canonical import write_canonical
from cfmvc.data.config import SimulateConfig
from cfmvc.data.normalise import log_normalise
from cfmvc.data.simulate import simulate
from cfmvc.errors import CfmvcError
from cfmvc.flow.shift_process import ShiftProcess
from cfmvc.models.bundle import Bundle, load_bundle, save_bundle
from cfmvc.models.mean_response import AskedShifts
from cfmvc.stages import expectation, fit_flow, fit_vae, predict_cells
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.prepared import training_cells
from cfmvc.training.config import FlowConfig, VaeConfig

CONDITIONS = pd.DataFrame(
    {
        "perturbation": ["P1", "P2", "control"],
        "batch": "batch_1",
        "cell_type": ["type_1", "type_2", "type_1"],
        "n_cells": [400, 400, 50],
    }
)


@pytest.fixture(scope="module")
def cells() -> AnnData:
    params = override(
        read_yaml(default_params_file()),
        [
            "simulate.n_cells=1500",
            "simulate.n_genes=200",
            "simulate.n_perturbations=3",
            "simulate.n_combinations=0",
            "simulate.n_interactive=0",
        ],
    )
    made, _ = simulate(parse_section(SimulateConfig, params["simulate"], "simulate"))
    made.obs["split"] = "train"
    return made


@pytest.fixture(scope="module", params=["control", "noise"])
def bundle(request: pytest.FixtureRequest, cells: AnnData) -> Bundle:
    params = override(
        read_yaml(default_params_file()),
        ["vae.n_epochs=12", "flow.n_epochs=3", f"flow.source={request.param}"],
    )
    compute = parse_section(ComputeConfig, params["compute"], "compute")
    device = use("cpu", compute.n_threads)
    known = training_cells(cells)
    made, _ = fit_vae(known, parse_section(VaeConfig, params["vae"], "vae"), device)
    made, _ = fit_flow(made, known, parse_section(FlowConfig, params["flow"], "flow"), device)
    return made


def shift_of(bundle: Bundle, cells: AnnData, generated: AnnData, row: int) -> np.ndarray:
    """Mean log expression of a condition's virtual cells, less that of the real controls."""
    condition = CONDITIONS.iloc[row]
    real = cells.obs
    controls = (real["perturbation"] == "control") & (real["batch"] == condition["batch"])
    controls &= real["cell_type"] == condition["cell_type"]
    mine = generated.obs["perturbation"] == condition["perturbation"]
    return _mean(generated[mine.to_numpy()], bundle) - _mean(cells[controls.to_numpy()], bundle)


def _mean(cells: AnnData, bundle: Bundle) -> np.ndarray:
    logged = log_normalise(cells.layers["counts"].tocsr(), bundle.median_library)
    return np.asarray(logged.mean(axis=0)).reshape(-1)


def expected_of(bundle: Bundle, row: int) -> np.ndarray:
    assert bundle.response is not None
    one = CONDITIONS.iloc[[row]]
    batch = bundle.vocabulary.batch_codes(one["batch"].to_numpy())
    cell_type = bundle.vocabulary.cell_type_codes(one["cell_type"].to_numpy())
    known = bundle.response.controls_of(int(batch[0]), int(cell_type[0]))
    assert known is not None
    p = bundle.vocabulary.perturbation_matrix(one["perturbation"].to_numpy())
    controls = known[0][None], np.asarray([known[1]])
    return bundle.response.expected(AskedShifts(p, batch, cell_type, *controls))[0]


def weighed(bundle: Bundle, share: float) -> Bundle:
    assert bundle.response is not None
    return replace(bundle, response=bundle.response.with_share(share))


@pytest.mark.parametrize("with_controls", [True, False])
def test_the_mean_is_what_is_expected(bundle: Bundle, cells: AnnData, with_controls: bool) -> None:
    given = cells if with_controls else None
    whole = predict_cells(weighed(bundle, 1.0), CONDITIONS, given, seed=0, n_steps=4).cells
    alone = predict_cells(weighed(bundle, 0.0), CONDITIONS, given, seed=0, n_steps=4).cells
    for row in (0, 1):
        expected = expected_of(bundle, row)
        off = np.abs(shift_of(bundle, cells, whole, row) - expected).mean()
        assert off < np.abs(shift_of(bundle, cells, alone, row) - expected).mean()
        # Cells that are drawn anew are as dispersed as a short training leaves them: with the same
        # totals not all genes can have the mean logarithm of real cells.
        if with_controls and bundle.model.source == "control":
            assert off < 0.05  # of 400 cells that are drawn


def test_the_mean_is_what_is_expected_at_the_depth_of_the_cells(
    bundle: Bundle, cells: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells of a condition that was trained on are as deep as those: a measured shift knows it."""
    if bundle.model.source == "noise":
        pytest.skip("cells that are drawn anew are as dispersed as a short training leaves them")
    reference = bundle.model.reference
    assert reference is not None
    shallow = replace(
        reference, library=torch.where(reference.is_control, 1.0, 0.5) * reference.library
    )
    monkeypatch.setattr(bundle.model, "reference", shallow)
    made = predict_cells(weighed(bundle, 1.0), CONDITIONS, cells, seed=0, n_steps=4).cells
    off = np.abs(shift_of(bundle, cells, made, 0) - expected_of(bundle, 0)).mean()
    assert off < 0.05


def test_no_perturbation_leaves_real_cells_as_they_are(bundle: Bundle, cells: AnnData) -> None:
    if bundle.model.source == "noise":
        pytest.skip("noise has no real cells to leave")
    made = predict_cells(bundle, CONDITIONS, cells, seed=0, n_steps=4).cells
    untouched = made[(made.obs["perturbation"] == "control").to_numpy()]
    real = {row.tobytes() for row in cells.layers["counts"].toarray().astype(np.int32)}
    assert all(row.tobytes() in real for row in untouched.layers["counts"].toarray())


def test_neither_the_number_of_cells_nor_a_file_changes_what_is_expected(
    bundle: Bundle, cells: AnnData, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model") / "model"
    save_bundle(bundle, folder)
    asked = CONDITIONS.assign(n_cells=3)
    here = predict_cells(bundle, asked, cells, seed=1, n_steps=4).cells
    there = predict_cells(load_bundle(folder), asked, cells, seed=1, n_steps=4).cells
    assert (here.layers["counts"] != there.layers["counts"]).nnz == 0
    few = predict_cells(bundle, CONDITIONS.assign(n_cells=[1, 1, 1]), cells, seed=0, n_steps=4)
    many = predict_cells(bundle, CONDITIONS, cells, seed=0, n_steps=4).cells
    # of the same controls; but from noise 64 cells are drawn anew, which differ by chance
    atol = 0.05 if bundle.model.source == "control" else 0.15
    np.testing.assert_allclose(few.cells.varm["shift"], many.varm["shift"], atol=atol)


def test_the_shift_and_its_uncertainty_come_with_the_cells(
    bundle: Bundle, cells: AnnData, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = predict_cells(weighed(bundle, 1.0), CONDITIONS, cells, seed=0, n_steps=4).cells
    path = tmp_path_factory.mktemp("predicted") / "cells.h5ad"
    write_canonical(made, path)
    again = read_h5ad(path)
    shift, spread = again.varm["shift"], again.varm["shift_sd"]
    assert list(again.uns["shift_conditions"]) == [
        "P1 | batch_1 | type_1",
        "P2 | batch_1 | type_2",
        "control | batch_1 | type_1",
    ]
    assert (shift[:, 2] == 0).all()
    assert (spread[:, 2] == 0).all()
    assert (spread[:, :2] > 0).all()
    if bundle.model.source == "control":
        # but for what the expectation itself is unsure of
        np.testing.assert_allclose(shift[:, 0], expected_of(bundle, 0), atol=0.1)


def test_asked_in_blocks_the_same_is_expected(
    bundle: Bundle, cells: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict_cells(bundle, CONDITIONS, cells, seed=0, n_steps=4).cells
    monkeypatch.setattr(expectation, "_ASKED_AT_ONCE", 2)
    assert len(CONDITIONS) > 2
    parts = predict_cells(bundle, CONDITIONS, cells, seed=0, n_steps=4).cells
    for name in ("shift", "shift_sd"):
        np.testing.assert_allclose(parts.varm[name], whole.varm[name], rtol=1e-5, atol=1e-6)


def test_what_the_mean_response_does_not_remember_the_flow_tells_alone(
    bundle: Bundle, cells: AnnData
) -> None:
    """Of a screen with more conditions than are kept; here, all of P1 are taken away."""
    assert bundle.response is not None
    process = bundle.response.process
    is_kept = process.conditions.p[:, list(bundle.vocabulary.perturbations).index("P1")] == 0
    kept = np.flatnonzero(is_kept)
    process = ShiftProcess.fit(process.conditions.rows(kept), process.shift[kept])
    fewer = replace(bundle, response=replace(bundle.response, process=process))
    made = predict_cells(fewer, CONDITIONS, cells, seed=0, n_steps=4)
    # as good as no share: with none at all other random numbers are drawn
    alone = predict_cells(weighed(bundle, 1e-9), CONDITIONS, cells, seed=0, n_steps=4).cells
    (warning,) = made.warnings
    assert warning.startswith("P1 | batch_1 | type_1: of more conditions than")
    means, of_flow = (found.layers["mean"][:400] for found in (made.cells, alone))
    np.testing.assert_allclose(means, of_flow, rtol=1e-4)
    of_others = (found.layers["mean"][400:800] for found in (made.cells, alone))
    assert not np.allclose(*of_others, rtol=1e-2)


def test_strata_without_controls_alone_may_be_asked_for(bundle: Bundle, cells: AnnData) -> None:
    if bundle.model.source == "control":
        pytest.skip("a control source needs controls, and says so")
    strata = cells.obs[["batch", "cell_type"]].astype(str).agg(" ".join, axis=1)
    assert bundle.response is not None
    lonely = replace(bundle.response, strata=bundle.response.strata + 99)  # it knows no controls
    assert len(set(strata)) > 1
    asked = CONDITIONS.iloc[:1].assign(n_cells=5)
    made = predict_cells(replace(bundle, response=lonely), asked, seed=0, n_steps=2)
    assert np.isnan(made.cells.varm["shift"]).all()
    assert np.isfinite(made.cells.layers["mean"]).all()


def test_controls_of_another_batch_give_noise_no_technical_latent(
    bundle: Bundle, cells: AnnData
) -> None:
    if bundle.model.source == "control":
        pytest.skip("a control source needs controls, and says so")
    asked = CONDITIONS.iloc[:1].assign(n_cells=300)
    is_there = (cells.obs["batch"] == "batch_1").to_numpy()
    assert (~is_there).any()
    given = (cells, cells[~is_there].copy(), None)
    own, elsewhere, _ = (
        predict_cells(weighed(bundle, 0.0), asked, some, seed=0, n_steps=2).cells for some in given
    )
    assert own.obs["control_cell"].notna().all()
    assert elsewhere.obs["control_cell"].isna().all(), "they are made of none"
    means = [np.log(made.layers["mean"]).mean(axis=0) for made in (own, elsewhere)]
    asked = asked.assign(batch=next(iter(set(cells.obs["batch"]) - {"batch_1"})))
    other = predict_cells(weighed(bundle, 0.0), asked, cells, seed=0, n_steps=2).cells
    far = np.log(other.layers["mean"]).mean(axis=0)
    # as their own batch's cells, and not as those of the batch that the controls are of
    assert np.abs(means[1] - means[0]).mean() < 0.5 * np.abs(far - means[0]).mean()


def test_the_controls_noise_is_taken_out_of_what_starts_from_them_alone(
    bundle: Bundle, cells: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a flow from noise makes has none of it: the whole way is then a part of the way."""
    assert bundle.response is not None
    given = np.full(len(bundle.gene_names), 0.3)
    shifts = []
    for share in (0.5, 1.0):
        for noise in (0.0, 1.0):
            monkeypatch.setattr(
                "cfmvc.models.mean_response.MeanResponse.corrections",
                lambda self, asked, noise=noise: np.tile(noise * given, (len(asked.batch), 1)),
            )
            made = predict_cells(weighed(bundle, share), CONDITIONS, cells, seed=0, n_steps=2)
            shifts.append(np.asarray(made.cells.varm["shift"])[:, 0])
    half, whole = shifts[1] - shifts[0], shifts[3] - shifts[2]
    expected = whole if bundle.model.source == "control" else 0.5 * whole
    np.testing.assert_allclose(half.mean(), expected.mean(), rtol=0.15)


@pytest.mark.parametrize("name", ["weights", "reference", "response"])
def test_a_folder_that_is_not_whole_is_refused(name: str, bundle: Bundle, tmp_path: Path) -> None:
    """Without the response it would predict all the same, and something else."""
    folder = tmp_path / "model"
    save_bundle(bundle, folder)
    file = folder / f"{name}.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CfmvcError, match=f"{name}.safetensors: damaged .*copy the whole folder"):
        load_bundle(folder)
    file.unlink()
    with pytest.raises(CfmvcError, match=f"'{name}.safetensors' is missing; copy the whole folder"):
        load_bundle(folder)
