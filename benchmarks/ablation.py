"""What each part of the model is worth: folds of two data sets, with one part changed at a time.

    python -m benchmarks.ablation --data FOLDER_OF_THE_H5AD_FILES [--seeds 3] [--only NAME ...]

Every line is ``cfmvc benchmark`` with other parameters, on the same folds and seeds. An interval is
that of the difference from the shipped parameters, 95 %, with other folds and seeds drawn; what
does not hold 0 is marked. Scores are kept in ``.cfmvc/benchmark``: the same command goes on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cfmvc.benchmark.plan import Plan
from cfmvc.benchmark.run import benchmark
from cfmvc.config import default_params_file, override, read_yaml
from cfmvc.evaluation.result import MODEL

SETS = {
    "Kang": ("kang_pbmc_ifnb.h5ad", "held_out_cell_type"),
    "Papalexi": ("papalexi_thp1_crispr.h5ad", "held_out_batch"),
}
SHIPPED = "as shipped"
VARIANTS: dict[str, list[str]] = {
    SHIPPED: [],
    "the flow alone": ["flow.mean_response=0"],
    "mean response 0.5": ["flow.mean_response=0.5"],
    "mean response 0.6": ["flow.mean_response=0.6"],
    "the mean response wholly": ["flow.mean_response=1"],
    "noise as the source": ["flow.source=noise"],
    "control source, pairs at random": ["flow.coupling=independent"],
    "labels always seen": ["flow.label_dropout=0"],
    "labels seen by most cells": ["flow.label_dropout=0.3"],
    "dropout 0.1": ["flow.dropout=0.1"],
    "twice as wide": ["flow.hidden_dim=256"],
    "energy distance in the loss": ["flow.lambda_dist=1"],
    "MMD in the loss": ["flow.lambda_dist=1", "flow.divergence=mmd"],
    "weights not averaged": ["flow.ema_decay=0"],
    "VAE: 80 epochs": ["vae.n_epochs=80"],
    "VAE: twice as wide": ["vae.hidden_dim=512"],
    "VAE: 64 latents instead of 32": ["vae.dim_int=64"],
    "VAE: beta 1": ["vae.beta=1"],
    "VAE: batches not pulled together": ["vae.lambda_batch=0"],
}
METRICS = {  # and to how many digits
    "pearson_delta": 3,
    "mse_top50": 4,
    "energy_distance": 3,
    "variance_ratio_top50": 3,
}
_N_DRAWS = 2000


def scored(data: Path, task: str, settings: Sequence[str], n_seeds: int) -> pd.DataFrame:
    """Return the model's averages, index ``(fold, seed)``."""
    params = override(read_yaml(default_params_file()), list(settings))
    plan = Plan.of(task, data, params, [], list(range(n_seeds)))
    out = Path("results") / "ablation" / plan.key[:12]
    summary = benchmark(plan, data, Path.cwd(), out, track=False, say=print)
    return summary.all.xs(MODEL, level="method")[list(METRICS)]


def differences(shipped: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return ``low`` and ``high`` of the difference of means, one row a metric.

    Folds are drawn with replacement, and seeds within each of them.
    """
    table = (other - shipped).reindex(shipped.index)
    folds = [part.to_numpy() for _, part in table.groupby(level="fold")]
    rng = np.random.default_rng(0)
    drawn = np.empty((_N_DRAWS, len(METRICS)))
    for row in range(_N_DRAWS):
        chosen = [folds[fold] for fold in rng.integers(len(folds), size=len(folds))]
        drawn[row] = np.mean([seeds[rng.integers(len(seeds))] for seeds in chosen], axis=0)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return pd.DataFrame({"low": low, "high": high}, index=list(METRICS))


def row_of(name: str, shipped: pd.DataFrame, mine: pd.DataFrame) -> str:
    """Return a line of the table in Markdown."""
    mean, bounds = mine.groupby(level="seed").mean().mean(), differences(shipped, mine)
    cells = []
    for metric, digits in METRICS.items():
        low, high = bounds.loc[metric]
        word = "" if name == SHIPPED else f" ({low:+.{digits}f} to {high:+.{digits}f})"
        cells.append(f"{mean[metric]:.{digits}f}{word}{' *' if low > 0 or high < 0 else ''}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the .h5ad files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    for name in arguments.sets:
        file, task = SETS[name]
        data, lines = arguments.data / file, []
        shipped = scored(data, task, VARIANTS[SHIPPED], arguments.seeds)
        for variant in dict.fromkeys([SHIPPED, *arguments.only]):
            mine = scored(data, task, VARIANTS[variant], arguments.seeds)
            lines.append(row_of(variant, shipped, mine))
            print(lines[-1], flush=True)
        print(f"\n**{name}**, `{task}`, {arguments.seeds} seeds\n")
        print(f"| | {' | '.join(METRICS)} |\n|---|{'---|' * len(METRICS)}")
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
