"""The reference tables of the scoring rules: baselines and ceiling on Kang and Papalexi.

    python benchmarks/reference_folds.py --data FOLDER_OF_THE_H5AD_FILES

Kang: 5 folds, (cell type, IFNb) held out in both donors. Papalexi: 3 folds, (replicate, each of the
8 clearest knock-outs) held out. `cfmvc benchmark` has the same folds, and trains the model on them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from cfmvc.benchmark.knock_outs import clearest_knock_outs
from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.evaluation import EvaluateConfig
from cfmvc.evaluation.evaluate import evaluate

CONTROL = "control"
N_KNOCK_OUTS = 8
MIN_CELLS = 40
COLUMNS = [
    "pearson_delta",
    "mse_top50",
    "energy_distance",
    "variance_ratio_top50",
    "discrimination",
]


def kang_folds(folder: Path) -> Iterator[ad.AnnData]:
    """Yield the data once a cell type, its IFNb cells marked as test."""
    cells = ad.read_h5ad(folder / "kang_pbmc_ifnb.h5ad")
    for cell_type in sorted(cells.obs["cell_type"].unique()):
        held_out = (cells.obs["cell_type"] == cell_type) & (cells.obs["perturbation"] == "IFNb")
        yield _marked(cells, held_out)


def papalexi_folds(folder: Path) -> Iterator[ad.AnnData]:
    """Yield the data once a replicate, the replicate's 8 clearest knock-outs marked as test."""
    cells = ad.read_h5ad(folder / "papalexi_thp1_crispr.h5ad")
    for batch in sorted(cells.obs["batch"].unique()):
        replicate = cells[cells.obs["batch"] == batch]
        clearest = clearest_knock_outs(replicate, CONTROL, N_KNOCK_OUTS, MIN_CELLS)
        held_out = (cells.obs["batch"] == batch) & cells.obs["perturbation"].isin(clearest)
        yield _marked(cells, held_out)


def reference_table(folds: Iterator[ad.AnnData], config: EvaluateConfig) -> pd.DataFrame:
    """Return methods x metrics: means over the conditions of a fold, then over folds."""
    averages = [evaluate(fold, None, config, CONTROL, "+").averages for fold in folds]
    return sum(averages[1:], start=averages[0]) / len(averages)


def _marked(cells: ad.AnnData, held_out: pd.Series) -> ad.AnnData:
    marked = cells.copy()
    marked.obs["split"] = np.where(held_out, "test", "train")
    return marked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the .h5ad files")
    parser.add_argument("--params", type=Path, default=default_params_file())
    arguments = parser.parse_args()
    config = parse_section(EvaluateConfig, read_yaml(arguments.params)["evaluate"], "evaluate")
    for name, folds in (("Kang", kang_folds), ("Papalexi", papalexi_folds)):
        table = reference_table(folds(arguments.data), config)
        shown = table[[column for column in COLUMNS if column in table]]
        print(f"{name}\n{shown.to_string(float_format='{:.4f}'.format)}\n")


if __name__ == "__main__":
    main()
