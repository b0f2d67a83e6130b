"""Doses that are concentrations: how strongly they act is learnt, by flow and mean response."""

import numpy as np
import pytest

from cfmvc.config import default_params_file, override, parse_section, read_yaml
from cfmvc.data.config import SimulateConfig
from cfmvc.data.simulate import Biology, simulate
from cfmvc.models.bundle import load_bundle, save_bundle
from cfmvc.stages import fit_flow, fit_vae
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.prepared import training_cells
from cfmvc.training.config import FlowConfig, VaeConfig

SHIPPED = override(read_yaml(default_params_file()), ["vae.n_epochs=1", "flow.n_epochs=1"])
DOSES = [10.0, 100.0, 1000.0, 10_000.0]
SIMULATED = {
    "n_cells": 4000,
    "n_genes": 100,
    "n_batches": 1,
    "n_cell_types": 2,
    "n_perturbations": 3,
    "n_combinations": 0,
    "n_interactive": 0,
    "perturbed_fraction": 0.4,
}


@pytest.mark.parametrize("half_dose", [100.0, None])
def test_what_small_doses_do_is_learnt(half_dose: float | None, tmp_path) -> None:
    doses = DOSES if half_dose else [0.5, 1.0, 2.0]
    section = {**SHIPPED["simulate"], **SIMULATED, "doses": doses, "half_dose": half_dose}
    config = parse_section(SimulateConfig, section, "simulate")
    made, _ = simulate(config)
    made.obs["split"] = "train"
    cells = training_cells(made)
    device = use("cpu", parse_section(ComputeConfig, SHIPPED["compute"], "compute").n_threads)
    vae, _ = fit_vae(cells, parse_section(VaeConfig, SHIPPED["vae"], "vae"), device)
    bundle, history = fit_flow(
        vae, cells, parse_section(FlowConfig, SHIPPED["flow"], "flow"), device
    )
    assert ("effect_of_a_tenth" in history.summary()) == (half_dose is not None)
    save_bundle(bundle, tmp_path / "model")
    for known in (bundle, load_bundle(tmp_path / "model")):
        assert known.response is not None
        p = np.asarray(doses)[:, None] * np.ones(4)
        found = known.response.doses.strength(p)[:, 1:]
        halves = Biology.draw(config).half_dose
        expected = p[:, 1:] / doses[-1]
        if halves is not None:
            expected = (p[:, 1:] / (p[:, 1:] + halves)) * (1.0 + halves / doses[-1])
        # In log expression: what rises strongly rises more than in proportion.
        np.testing.assert_allclose(found, expected, atol=0.15)
        context = known.model.context
        for name, values in (
            ("largest_dose", known.response.doses.largest),
            ("dose_saturation", known.response.doses.saturation),
            ("dose_steepness", known.response.doses.steepness),
        ):
            np.testing.assert_allclose(getattr(context, name).numpy(), values, rtol=1e-6)
