"""Perturbations that were never seen, by their embeddings; what has none is an error."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cfmvc.config import default_params_file, override, parse_section, read_yaml
from cfmvc.data.config import SimulateConfig
from cfmvc.data.embeddings import EMBEDDINGS
from cfmvc.data.normalise import log_normalise
from cfmvc.data.simulate import simulate
from cfmvc.errors import DataError, UnknownLabelError
from cfmvc.models.bundle import Bundle, load_bundle, save_bundle
from cfmvc.models.extension import with_embeddings
from cfmvc.stages import fit_flow, fit_vae, predict_cells
from cfmvc.stages.beyond import other_vectors
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.expectation import _columns_of_flow
from cfmvc.stages.prepared import training_cells
from cfmvc.training.config import FlowConfig, VaeConfig

UNSEEN = ["P2", "P7"]
SIMULATED = {
    "n_cells": 4000,
    "n_genes": 120,
    "n_batches": 1,
    "n_cell_types": 2,
    "n_perturbations": 14,
    "n_combinations": 0,
    "n_interactive": 0,
    "embedding_dim": 2,
    "specific_effect": 0.0,
}


@pytest.fixture(scope="module")
def cells() -> AnnData:
    settings = [f"simulate.{key}={value}" for key, value in SIMULATED.items()]
    params = override(read_yaml(default_params_file()), settings)
    config = parse_section(SimulateConfig, params["simulate"], "simulate")
    made, _ = simulate(config)
    made.obs["split"] = np.where(made.obs["perturbation"].isin(UNSEEN), "test", "train")
    return made


def fitted(cells: AnnData) -> Bundle:
    params = override(read_yaml(default_params_file()), ["vae.n_epochs=10", "flow.n_epochs=10"])
    device = use("cpu", parse_section(ComputeConfig, params["compute"], "compute").n_threads)
    known = training_cells(cells)
    bundle, _ = fit_vae(known, parse_section(VaeConfig, params["vae"], "vae"), device)
    flow = parse_section(FlowConfig, params["flow"], "flow")
    return fit_flow(bundle, known, flow, device)[0]


@pytest.fixture(scope="module")
def bundle(cells: AnnData) -> Bundle:
    return fitted(cells)


def predicted(bundle: Bundle, cells: AnnData, label: str) -> np.ndarray:
    """Mean log expression of virtual cells, less that of the controls."""
    asked = pd.DataFrame(
        {"perturbation": [label], "batch": "batch_1", "cell_type": "type_1", "n_cells": 300}
    )
    real = cells[(cells.obs["split"] == "train").to_numpy()]
    made = predict_cells(bundle, asked, real, seed=0, n_steps=5).cells
    return _mean(bundle, made) - _mean(bundle, _of(cells, "control"))


def true(bundle: Bundle, cells: AnnData, label: str) -> np.ndarray:
    return _mean(bundle, _of(cells, label)) - _mean(bundle, _of(cells, "control"))


def _of(cells: AnnData, label: str) -> AnnData:
    mine = (cells.obs["perturbation"] == label) & (cells.obs["cell_type"] == "type_1")
    return cells[mine.to_numpy()]


def _mean(bundle: Bundle, cells: AnnData) -> np.ndarray:
    logged = log_normalise(cells.layers["counts"].tocsr(), bundle.median_library)
    return np.asarray(logged.mean(axis=0)).reshape(-1)


def test_the_response_follows_the_embedding(bundle: Bundle, cells: AnnData) -> None:
    for label in UNSEEN:
        found, truth = predicted(bundle, cells, label), true(bundle, cells, label)
        r = np.corrcoef(found, truth)[0, 1]
        others = [
            np.corrcoef(found, true(bundle, cells, other))[0, 1]
            for other in ("P1", "P3", "P4", "P5", "P6")
        ]
        assert r > 0.45  # a part of the response follows no embedding
        assert r > np.mean(others) + 0.3


def test_its_mean_is_what_is_expected_for_the_flow_knows_nothing_of_it(
    bundle: Bundle, cells: AnnData
) -> None:
    assert bundle.response is not None
    flowing = replace(bundle, response=bundle.response.with_share(0.1))
    for label in (UNSEEN[0], f"P1+{UNSEEN[0]}"):
        found = predicted(bundle, cells, label)
        np.testing.assert_array_equal(predicted(flowing, cells, label), found)
    seen = "P1"
    assert np.abs(predicted(flowing, cells, seen) - predicted(bundle, cells, seen)).max() > 0.01


def test_a_flow_from_noise_learns_of_cells_without_controls_as_well(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, response, names = bundle.model, bundle.response, bundle.vocabulary.perturbations
    assert response is not None
    assert model.reference is not None
    monkeypatch.setattr(model, "reference", model.reference.select(~model.reference.is_control))
    unknown = {}
    for source in ("control", "noise"):
        monkeypatch.setattr(model, "source", source)
        columns = _columns_of_flow(bundle, response)[1]
        unknown[source] = [name for name, is_new in zip(names, columns, strict=True) if is_new]
    assert unknown == {"control": list(names), "noise": [names[0], *UNSEEN]}


def test_embeddings_count_from_the_users_zero(bundle: Bundle, cells: AnnData) -> None:
    assert bundle.response is not None
    given = cells.uns[EMBEDDINGS].reindex(bundle.vocabulary.perturbations[1:]).to_numpy()
    conditions = bundle.response.process.conditions
    told, theirs = conditions.embedding, conditions.p[:, 1:] @ given
    unit = np.linalg.norm(told) / np.linalg.norm(theirs)
    np.testing.assert_allclose(told, unit * theirs, atol=1e-6)


def test_a_vector_may_come_later_and_tells_the_same(
    bundle: Bundle, cells: AnnData, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As a new label, the vector of one that the table had is the same perturbation."""
    folder = tmp_path_factory.mktemp("model") / "model"
    save_bundle(bundle, folder)
    vector = cells.uns[EMBEDDINGS].loc[["P7"]].rename(index={"P7": "new"})
    wider = with_embeddings(load_bundle(folder), vector)
    np.testing.assert_allclose(
        predicted(wider, cells, "new"), predicted(bundle, cells, "P7"), atol=0.02
    )
    with pytest.raises(UnknownLabelError, match="unknown perturbation 'new'"):
        predicted(bundle, cells, "new")
    known = cells.uns[EMBEDDINGS].loc[["P1"]]
    assert with_embeddings(bundle, known) is bundle


def test_known_perturbations_keep_the_vectors_of_the_training(
    bundle: Bundle, cells: AnnData
) -> None:
    given = cells.uns[EMBEDDINGS].copy()
    assert other_vectors(bundle, given.round(5)) == []
    first, control = given.index[0], bundle.vocabulary.control
    given.loc[first] += 0.5
    given.loc["new"] = given.loc[control] = 7.0
    assert other_vectors(bundle, given) == [first]


def test_what_cannot_be_told_is_an_error(bundle: Bundle, cells: AnnData) -> None:
    with pytest.raises(DataError, match="vectors of 3 numbers, those of the training have 2"):
        with_embeddings(bundle, pd.DataFrame([[1.0, 2.0, 3.0]], index=["new"]))
    lacking = cells.copy()
    lacking.uns[EMBEDDINGS] = lacking.uns[EMBEDDINGS].drop(index="P1")
    with pytest.raises(DataError, match="no vector of 'P1'"):
        training_cells(lacking)
    plain = cells[(cells.obs["split"] == "train").to_numpy()].copy()
    del plain.uns[EMBEDDINGS]
    with pytest.raises(UnknownLabelError, match="unknown perturbation 'P7'"):
        training_cells(plain).vocabulary.perturbation_matrix(["P7"])
