"""The work behind ``cfmvc fit``."""

from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from cfmvc.cli.columns import mapped
from cfmvc.config import default_params_file, override, parse_section, read_yaml
from cfmvc.data.canonical import load_cells
from cfmvc.data.config import DataConfig, SplitConfig
from cfmvc.data.splits import validation_cells
from cfmvc.errors import ConfigError
from cfmvc.models import save_bundle
from cfmvc.stages import fit_flow, fit_joint, fit_vae
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.prepared import training_cells
from cfmvc.tracking.callback import watchers
from cfmvc.tracking.tracker import NullTracker, Tracker
from cfmvc.training.config import FlowConfig, JointConfig, VaeConfig


def fit_file(
    train: Path,
    out: Path,
    settings: list[str],
    mapping: list[str],
    control: str | None,
    params_file: Path | None,
    track: bool,
) -> dict[str, Any]:
    """Validate a file, train all stages on it, write the bundle, and return what was made."""
    params = override(read_yaml(params_file or default_params_file()), settings)
    data = mapped(parse_section(DataConfig, params["data"], "data"), mapping, control)
    vae = parse_section(VaeConfig, params["vae"], "vae")
    flow = parse_section(FlowConfig, params["flow"], "flow")
    joint = parse_section(JointConfig, params["joint"], "joint")
    split = parse_section(SplitConfig, params["split"], "split")
    device = use(parse_section(ComputeConfig, params["compute"], "compute"))
    adata = load_cells(train, data)
    adata.obs["split"] = pd.Categorical(
        ["val" if is_val else "train" for is_val in validation_cells(adata.obs, split)]
    )
    cells = training_cells(adata)
    with _tracking(track, params) as tracker:
        for name, section in {"vae": vae, "flow": flow, "joint": joint, "split": split}.items():
            values = section.model_dump().items()
            tracker.log_params({f"{name}.{key}": value for key, value in values})
        with watchers(tracker, "vae_") as watching:
            bundle, _ = fit_vae(cells, vae, device, watching)
        with watchers(tracker, "flow_") as watching:
            bundle, _ = fit_flow(bundle, cells, flow, device, watching)
        if joint.n_epochs:
            with watchers(tracker, "joint_") as watching:
                bundle, _ = fit_joint(bundle, cells, joint, flow.lambda_dist, device, watching)
        save_bundle(bundle, out)
    return {
        "model": str(out),
        "n_cells": adata.n_obs,
        "n_genes": len(bundle.gene_names),
        "n_perturbations": len(bundle.vocabulary.perturbations) - 1,
        "n_batches": len(bundle.vocabulary.batches),
        "n_cell_types": len(bundle.vocabulary.cell_types),
    }


def _tracking(track: bool, params: dict[str, Any]) -> Any:
    """Return a context with a tracker; MLflow is imported only where it is wanted."""
    if not track:
        nothing: Tracker = NullTracker()
        return nullcontext(nothing)
    if find_spec("mlflow") is None:
        raise ConfigError("--track needs MLflow; pip install 'cfmvc[pipeline]'")
    from cfmvc.tracking import TrackingConfig, stage_run

    config = parse_section(TrackingConfig, params["tracking"], "tracking")
    return stage_run("fit", Path.cwd(), config)
