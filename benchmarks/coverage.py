"""How often the true shift of a gene lies in the interval that the mean response gives for it.

    python -m benchmarks.coverage --data FOLDER_OF_THE_H5AD_FILES

The folds of two published data sets (benchmarks/reference_folds.py). Of each held-out condition the
measured mean shift of every gene is put beside the expected one; the interval is that of 90 %, with
the noise of the two measured means added to the model's own uncertainty. No network is trained: the
mean response is learnt from the training cells alone, and cells are paired in principal components
in the place of latents.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

from benchmarks.held_out_shifts import held_out_shifts
from benchmarks.reference_folds import kang_folds, papalexi_folds
from cfmvc.data.dataset import CellTable
from cfmvc.data.normalise import log_normalise
from cfmvc.flow.state_slopes import PairGroup
from cfmvc.models.reference import ReferenceCells
from cfmvc.stages.prepared import training_cells
from cfmvc.stages.response import fit_response
from cfmvc.training.pairs import CellPairs, sampled_pairs

CONFIDENCE = 0.9
N_TOP, N_COMPONENTS = 50, 32


def covered(fold: ad.AnnData) -> Iterator[dict[str, object]]:
    """Yield the share of genes within their intervals, of each held-out condition."""
    cells = training_cells(fold)
    library = float(np.median(cells.train.library))
    no_embedding = np.zeros((len(cells.vocabulary.perturbations), 0))
    pairs = paired(cells.train, library)
    response = fit_response([cells.train], library, no_embedding, pairs)
    assert response is not None
    for one in held_out_shifts(fold, cells.vocabulary, library, response):
        spread = np.sqrt(response.uncertainty(one.asked)[0] ** 2 + one.noise)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the .h5ad files")
    folder = parser.parse_args().data
    for name, folds in (("Kang", kang_folds), ("Papalexi", papalexi_folds)):
        table = pd.DataFrame([row for fold in folds(folder) for row in covered(fold)])
        shares = table[["all", "top"]].agg(["mean", "min", "max"])
        print(f"{name}: {len(table)} conditions, share of genes within their 90 % interval")
        print(shares.rename(columns={"top": f"{N_TOP} most shifted"}).round(3).to_string(), "\n")


if __name__ == "__main__":
    main()
