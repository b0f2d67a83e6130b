"""How often the true shift of a gene lies in the interval that the mean response gives for it.

    python -m benchmarks.coverage [--data FOLDER_OF_THE_H5AD_FILES] [--draws 4]

The folds of two published data sets (benchmarks/reference_folds.py), where their folder is given,
and simulated screens in which combinations or doses are held out (benchmarks/not_additive.py). Of
each held-out condition the measured mean shift of every gene is put beside the expected one; the
interval is that of 90 %, with the noise of the condition's measured mean added to the model's own
uncertainty. No network is trained: the mean response is learnt from the training cells alone, and
cells are paired in principal components in the place of latents.
"""

import argparse
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

from benchmarks.held_out_shifts import held_out_shifts
from benchmarks.not_additive import (
    COMBINATIONS,
    DOSES,
    combinations_held_out,
    doses_held_out,
    drawn,
)
from benchmarks.reference_folds import kang_folds, papalexi_folds
from cfmvc.data.dataset import CellTable
from cfmvc.data.normalise import log_normalise
from cfmvc.flow.state_slopes import PairGroup
from cfmvc.models.reference import ReferenceCells
from cfmvc.stages.prepared import training_cells
from cfmvc.stages.response import dose_curves, fit_response
from cfmvc.training.pairs import CellPairs, sampled_pairs

CONFIDENCE = 0.9
N_TOP, N_COMPONENTS = 50, 32


def covered(fold: ad.AnnData) -> Iterator[dict[str, object]]:
    """Yield the share of genes within their intervals, of each held-out condition."""
    cells = training_cells(fold)
    library = float(np.median(cells.train.library))
    no_embedding = np.zeros((len(cells.vocabulary.perturbations), 0))
    pairs = paired(cells.train, library)
    curves = dose_curves([cells.train], library)
    response = fit_response([cells.train], library, no_embedding, pairs, doses=curves)
    assert response is not None
    for one in held_out_shifts(fold, cells.vocabulary, library, response):
        spread = np.sqrt(response.uncertainty(one.asked)[0] ** 2 + one.own_noise)
        expected = response.expected(one.asked)[0] + response.corrections(one.asked)[0]
        is_in = np.abs(one.measured - expected) < norm.ppf(0.5 + CONFIDENCE / 2) * spread
        top = np.argsort(-np.abs(one.measured))[:N_TOP]
        yield {"condition": one.label, "all": is_in.mean(), "top": is_in[top].mean()}


def paired(table: CellTable, library: float) -> list[PairGroup]:
    """Pair cells in principal components."""
    logged = log_normalise(table.rows(slice(None)), library).toarray()
    left, sizes, _ = np.linalg.svd(logged - logged.mean(axis=0), full_matrices=False)
    scores = torch.from_numpy((left * sizes)[:, :N_COMPONENTS].astype(np.float32))
    ones = torch.ones_like(scores)
    cells = ReferenceCells(
        torch.from_numpy(table.conditions),
        torch.from_numpy(table.condition),
        torch.from_numpy(table.batch),
        torch.from_numpy(table.cell_type),
        library=ones[:, 0],
        int_mean=scores,
        int_std=ones,
        tech_mean=ones,
        tech_std=ones,
    )
    return sampled_pairs(CellPairs(cells, cells, lambda points: points, "ot", 0))


def simulated(n_draws: int) -> Iterator[tuple[str, Iterator[ad.AnnData]]]:
    """Yield what is held out of simulated screens, and the folds."""

    def screens(n_combinations: int, changed: dict[str, Any]) -> Iterator[ad.AnnData]:
        sizes = {"n_combinations": n_combinations, "n_interactive": n_combinations} | changed
        return (drawn(seed, **sizes) for seed in range(n_draws))

    for kind, changed in COMBINATIONS.items():
        held_out = map(combinations_held_out, screens(20, changed))
        yield f"combinations, {kind}", chain.from_iterable(held_out)
    for kind, changed in DOSES.items():
        for place, dose in enumerate(changed["doses"]):
            held_out = map(doses_held_out, screens(0, changed), repeat(place))
            yield f"doses, {kind}: {dose:g}", chain.from_iterable(held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the .h5ad files")
    parser.add_argument("--draws", type=int, default=4, help="simulated data sets of each kind")
    arguments = parser.parse_args()
    published = {"Kang": kang_folds, "Papalexi": papalexi_folds} if arguments.data else {}
    known = ((name, folds(arguments.data)) for name, folds in published.items())
    print("Share of genes within their 90 % interval: mean over conditions (least)\n")
    print(f"| held out | conditions | all genes | {N_TOP} most shifted |\n|---|---:|---|---|")
    for name, folds in chain(known, simulated(arguments.draws)):
        table = pd.DataFrame([row for fold in folds for row in covered(fold)])
        shares = [f"{table[of].mean():.3f} ({table[of].min():.2f})" for of in ("all", "top")]
        print(f"| {name} | {len(table)} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
