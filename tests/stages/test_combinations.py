"""Combinations that were measured tell of others, through all of the training."""

import pytest

from cfmvc.config import default_params_file, override, parse_section, read_yaml
from cfmvc.data.config import SimulateConfig
from cfmvc.data.simulate import simulate
from cfmvc.models.bundle import Bundle
from cfmvc.stages import fit_flow, fit_vae
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.prepared import training_cells
from cfmvc.training.config import FlowConfig, VaeConfig
from cfmvc.training.history import History

SHIPPED = override(read_yaml(default_params_file()), ["vae.n_epochs=1", "flow.n_epochs=1"])
SIMULATED = {
    "n_cells": 3000,
    "n_genes": 100,
    "n_batches": 1,
    "n_cell_types": 1,
    "n_perturbations": 5,
    "n_combinations": 8,
    "n_interactive": 8,
    "perturbed_fraction": 0.5,
    "interaction_effect": 0.5,
}


def trained(interaction: str) -> tuple[Bundle, History]:
    section = {**SHIPPED["simulate"], **SIMULATED, "interaction": interaction}
    made, _ = simulate(parse_section(SimulateConfig, section, "simulate"))
    made.obs["split"] = "train"
    cells = training_cells(made)
    device = use("cpu", parse_section(ComputeConfig, SHIPPED["compute"], "compute").n_threads)
    vae, _ = fit_vae(cells, parse_section(VaeConfig, SHIPPED["vae"], "vae"), device)
    return fit_flow(vae, cells, parse_section(FlowConfig, SHIPPED["flow"], "flow"), device)


@pytest.mark.parametrize(
    ("interaction", "low", "high"), [("limited", 0.5, 0.92), ("own", 0.95, 1.05)]
)
def test_how_strongly_parts_act_in_company_is_found_and_noted(
    interaction: str, low: float, high: float
) -> None:
    bundle, history = trained(interaction)
    assert bundle.response is not None
    assert low < bundle.response.gain[0] < high
    assert history.summary()["combination_gain"] == bundle.response.gain[0]
