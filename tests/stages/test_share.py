"""The share of the mean response, of flows that know what they were trained on and that do not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cfmvc.config import default_params_file, override, parse_section, read_yaml
from cfmvc.data.config import SimulateConfig
from cfmvc.data.simulate import simulate
from cfmvc.models.bundle import Bundle, load_bundle, save_bundle
from cfmvc.stages import fit_flow, fit_joint, fit_vae
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.encoding import encode_table
from cfmvc.stages.prepared import training_cells
from cfmvc.stages.share import learnt_share
from cfmvc.stages.vae import TrainingCells
from cfmvc.training.config import FlowConfig, JointConfig, VaeConfig
from cfmvc.training.history import History

SHIPPED = read_yaml(default_params_file())
DEVICE = use("cpu", parse_section(ComputeConfig, SHIPPED["compute"], "compute").n_threads)
LEAST = SHIPPED["flow"]["mean_response"]
SIMULATED = {
    "n_cells": 2000,
    "n_genes": 150,
    "n_batches": 1,
    "n_cell_types": 3,
    "n_perturbations": 2,
    "n_combinations": 0,
    "n_interactive": 0,
}


@pytest.fixture(scope="module")
def cells() -> TrainingCells:
    config = parse_section(SimulateConfig, {**SHIPPED["simulate"], **SIMULATED}, "simulate")
    made, _ = simulate(config)
    made.obs["split"] = "train"
    return training_cells(made)


@pytest.fixture(scope="module")
def trained(cells: TrainingCells) -> Bundle:
    params = override(SHIPPED, ["vae.n_epochs=60"])
    return fit_vae(cells, parse_section(VaeConfig, params["vae"], "vae"), DEVICE)[0]


def flowing(trained: Bundle, cells: TrainingCells, *settings: str) -> tuple[Bundle, History]:
    params = override(SHIPPED, [f"flow.{setting}" for setting in settings])
    return fit_flow(trained, cells, parse_section(FlowConfig, params["flow"], "flow"), DEVICE)


def test_of_a_flow_that_has_learnt_nothing_little_is_left(
    trained: Bundle, cells: TrainingCells
) -> None:
    made, history = flowing(trained, cells, "n_epochs=1", "lr=1e-9")
    assert made.response is not None
    (share,) = made.response.share
    assert share > 0.9
    assert history.summary()["mean_response_share"] == share


def test_a_flow_that_knows_its_training_keeps_what_it_is_given(
    trained: Bundle, cells: TrainingCells, tmp_path: Path
) -> None:
    made, _ = flowing(trained, cells, "n_epochs=60")
    save_bundle(made, tmp_path / "model")
    again = load_bundle(tmp_path / "model")
    assert again.response is not None
    assert again.response.share == [LEAST]


@pytest.mark.parametrize(("given", "most"), [("0.01", 0.3), ("1", 1.0)])
def test_it_is_never_below_what_is_given(
    given: str, most: float, trained: Bundle, cells: TrainingCells
) -> None:
    made, history = flowing(trained, cells, "n_epochs=60", f"mean_response={given}")
    assert made.response is not None
    assert float(given) <= made.response.share[0] <= most
    assert history.figures == {"mean_response_share": made.response.share[0]}


def test_without_a_mean_response_there_is_none(trained: Bundle, cells: TrainingCells) -> None:
    made, history = flowing(trained, cells, "n_epochs=1", "mean_response=0")
    assert made.response is None
    assert history.figures == {}


@pytest.fixture(scope="module")
def known(trained: Bundle, cells: TrainingCells) -> Bundle:
    return flowing(trained, cells, "n_epochs=60", "mean_response=0.01")[0]


def test_cells_that_could_not_be_encoded_say_nothing(trained: Bundle, cells: TrainingCells) -> None:
    """The first control of each stratum, and of a flow that has learnt nothing."""
    made, _ = flowing(trained, cells, "n_epochs=1", "lr=1e-9", "mean_response=0.01")
    latents = encode_table(made.model, cells.train, DEVICE)
    broken = latents.int_mean.clone()
    for cell_type in range(SIMULATED["n_cell_types"]):
        of_stratum = latents.is_control & (latents.cell_type == cell_type)
        broken[of_stratum.nonzero()[0]] = torch.nan
    assert learnt_share(made, cells.train, replace(latents, int_mean=broken), 0.01, 0) > 0.9


def test_a_stratum_whose_controls_only_validate_says_nothing(
    known: Bundle, cells: TrainingCells
) -> None:
    """From controls of another stratum the flow would come out elsewhere: no fault of it."""
    latents = encode_table(known.model, cells.train, DEVICE)
    kept = ~(latents.is_control & (latents.cell_type == 0)).cpu().numpy()
    table, fewer = cells.train.subset(kept), latents.select(torch.from_numpy(np.flatnonzero(kept)))
    share = learnt_share(known, table, fewer, 0.01, 0)
    assert share < 0.3
    nobody = ~latents.is_control.cpu().numpy()
    table = cells.train.subset(nobody)
    fewer = latents.select(torch.from_numpy(np.flatnonzero(nobody)))
    assert learnt_share(known, table, fewer, 0.01, 0) == 0.01


def test_a_joint_training_has_a_share_of_its_own(known: Bundle, cells: TrainingCells) -> None:
    params = override(SHIPPED, ["joint.n_epochs=1", "flow.mean_response=0.01"])
    flow = parse_section(FlowConfig, params["flow"], "flow")
    joint = parse_section(JointConfig, params["joint"], "joint")
    made, history = fit_joint(known, cells, joint, flow, DEVICE)
    assert made.response is not None
    assert history.figures == {"mean_response_share": made.response.share[0]}
