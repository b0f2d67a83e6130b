"""Simulated sparse cells of any number, written block by block.

python -m benchmarks.big_file OUT --cells 1000000
"""

import argparse
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import sparse_dataset, write_elem
from scipy.sparse import csr_matrix

N_GENES = 2000
_CELLS_AT_A_TIME = 4096
_N_BATCHES, _N_TYPES, _N_PERTURBATIONS = 4, 10, 20
_MEAN_LIBRARY = 400.0  # about 200 of 2,000 genes are seen in a cell: 10 % non-zero


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="an .h5ad file")
    parser.add_argument("--cells", type=int, required=True, help="number of cells")
    arguments = parser.parse_args()
    write_big_file(arguments.out, arguments.cells)


def write_big_file(path: Path, n_cells: int, seed: int = 0) -> None:
    """Write cells in the canonical form; cell types stand together, as in many real files."""
    rng = np.random.default_rng(seed)
    obs = _labels(rng, n_cells)
    var = pd.DataFrame(index=[f"gene{number}" for number in range(N_GENES)])
    AnnData(obs=obs, var=var).write_h5ad(path)
    profiles = rng.gamma(0.3, size=(_N_TYPES, N_GENES)) + 0.02
    responses = np.exp(0.5 * rng.normal(size=(_N_PERTURBATIONS, N_GENES)))
    responses[0] = 1.0
    with h5py.File(path, "r+") as file:
        for start in range(0, n_cells, _CELLS_AT_A_TIME):
            some = obs.iloc[start : start + _CELLS_AT_A_TIME]
            rates = (
                profiles[some["cell_type"].cat.codes] * responses[some["perturbation"].cat.codes]
            )
            depth = _MEAN_LIBRARY * np.exp(0.3 * rng.normal(size=len(some)))
            rates *= (depth / rates.sum(axis=1))[:, None]
            counts = rng.poisson(rates).astype(np.int32)
            counts[:, 0] += 1  # no cell is empty
            _append(file, csr_matrix(counts))


def _labels(rng: np.random.Generator, n_cells: int) -> pd.DataFrame:
    cell_type = np.arange(n_cells) * _N_TYPES // n_cells
    perturbation = rng.integers(0, _N_PERTURBATIONS + 9, n_cells)  # a third are controls
    perturbation[perturbation >= _N_PERTURBATIONS] = 0
    names = ["control", *(f"drug{number}" for number in range(1, _N_PERTURBATIONS))]
    return pd.DataFrame(
        {
            "perturbation": pd.Categorical.from_codes(perturbation, names),
            "batch": pd.Categorical.from_codes(
                rng.integers(0, _N_BATCHES, n_cells), [f"b{n}" for n in range(_N_BATCHES)]
            ),
            "cell_type": pd.Categorical.from_codes(
                cell_type, [f"type{number}" for number in range(_N_TYPES)]
            ),
        },
        index=[f"cell{number}" for number in range(n_cells)],
    )


def _append(file: h5py.File, counts: csr_matrix) -> None:
    if "counts" in file["layers"]:
        sparse_dataset(file["layers/counts"]).append(counts)
    else:
        write_elem(file["layers"], "counts", counts, dataset_kwargs={"compression": "lzf"})


if __name__ == "__main__":
    main()
