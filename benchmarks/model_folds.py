"""The model as shipped on the folds of two published data sets, beside the simple baselines.

    python -m benchmarks.model_folds --data FOLDER_OF_THE_H5AD_FILES [--set-name kang] [--seeds 3]

Each fold is trained anew with params.yaml; printed are the means over the conditions of a fold,
then over folds, and the spread over seeds.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from benchmarks.reference_folds import COLUMNS, CONTROL, kang_folds, papalexi_folds
from cfmvc.config import default_params_file, override, parse_section, read_yaml
from cfmvc.data.config import SplitConfig
from cfmvc.data.splits import validation_cells
from cfmvc.evaluation import EvaluateConfig
from cfmvc.evaluation.evaluate import evaluate
from cfmvc.stages import GenerateConfig, fit_flow, fit_vae
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.held_out import predict_held_out
from cfmvc.stages.prepared import training_cells
from cfmvc.training.config import FlowConfig, VaeConfig

FOLDS: dict[str, Callable[[Path], Iterator[ad.AnnData]]] = {
    "kang": kang_folds,
    "papalexi": papalexi_folds,
}


def with_validation(fold: ad.AnnData, split: SplitConfig) -> ad.AnnData:
    """Mark a share of the training cells as validation cells."""
    rest = (fold.obs["split"] != "test").to_numpy()
    is_val = np.zeros(fold.n_obs, dtype=bool)
    is_val[rest] = validation_cells(fold.obs[rest], split)
    fold.obs["split"] = np.where(is_val, "val", fold.obs["split"])
    return fold


def score(fold: ad.AnnData, params: dict[str, Any], seed: int) -> pd.DataFrame:
    """Train on a fold, predict its held-out conditions, and return the averages by method."""
    seeded = override(params, [f"{name}.seed={seed}" for name in ("vae", "flow", "generate")])
    compute = parse_section(ComputeConfig, seeded["compute"], "compute")
    device = use(compute.device, compute.n_threads)
    generate = parse_section(GenerateConfig, seeded["generate"], "generate")
    cells = training_cells(fold)
    bundle, _ = fit_vae(cells, parse_section(VaeConfig, seeded["vae"], "vae"), device)
    bundle, _ = fit_flow(bundle, cells, parse_section(FlowConfig, seeded["flow"], "flow"), device)
    predicted = predict_held_out(bundle, fold, CONTROL, generate)
    config = parse_section(EvaluateConfig, seeded["evaluate"], "evaluate")
    return evaluate(fold, predicted.cells, config, CONTROL, "+").averages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the .h5ad files")
    parser.add_argument("--set-name", choices=FOLDS, default="kang")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--params", type=Path, default=default_params_file())
    arguments = parser.parse_args()
    params = read_yaml(arguments.params)
    split = parse_section(SplitConfig, params["split"], "split")
    by_seed = []
    for seed in range(arguments.seeds):
        folds = FOLDS[arguments.set_name](arguments.data)
        tables = [score(with_validation(fold, split), params, seed) for fold in folds]
        by_seed.append(sum(tables[1:], start=tables[0]) / len(tables))
        columns = [name for name in COLUMNS if name in by_seed[-1]]
        print(f"{arguments.set_name}, seed {seed}, {len(tables)} folds")
        print(by_seed[-1][columns].round(4).to_string(), flush=True)
    if len(by_seed) > 1:
        ours = pd.DataFrame([table.loc["model", columns] for table in by_seed])
        print("model over seeds")
        print(ours.agg(["mean", "min", "max"]).round(4).to_string())


if __name__ == "__main__":
    main()
