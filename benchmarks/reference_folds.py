"""The reference tables of the scoring rules: baselines and ceiling on Kang and Papalexi.

    python benchmarks/reference_folds.py --data FOLDER_OF_THE_H5AD_FILES

Kang: 5 folds, (cell type, IFNb) held out in both donors. Papalexi: 3 folds, (replicate, each of the
8 knock-outs with most shifted genes) held out. A gene is shifted in a replicate if its Student t
test (pooled variance, log space) against the replicate's controls passes a Bonferroni-corrected
5 %; knock-outs with fewer than 40 cells in the replicate are not considered (MYC and SPI1 have 6 to
31, and noise instead of an effect). The published rules leave this open; of the readings that were
tried it is the one that comes nearest to the published table.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import ttest_ind

from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.evaluation import EvaluateConfig
from cfmvc.evaluation.evaluate import evaluate
from cfmvc.evaluation.normalise import log_normalise, median_library

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
        clearest = clearest_knock_outs(cells[cells.obs["batch"] == batch])
        held_out = (cells.obs["batch"] == batch) & cells.obs["perturbation"].isin(clearest)
        yield _marked(cells, held_out)


def clearest_knock_outs(replicate: ad.AnnData) -> list[str]:
    """Return the 8 knock-outs with most shifted genes; ties in alphabetical order."""
    counts = replicate.layers["counts"].tocsr()
    logged = log_normalise(counts, median_library(counts)).toarray()
    labels = replicate.obs["perturbation"].astype(str).to_numpy()
    n_shifted = {}
    for label in sorted(set(labels) - {CONTROL}):
        if (labels == label).sum() >= MIN_CELLS:
            p = ttest_ind(logged[labels == label], logged[labels == CONTROL]).pvalue
            n_shifted[label] = int((np.nan_to_num(p, nan=1.0) < 0.05 / len(p)).sum())
    return sorted(n_shifted, key=lambda label: (-n_shifted[label], label))[:N_KNOCK_OUTS]


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
