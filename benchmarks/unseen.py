"""How well an embedding alone tells what a perturbation does: the mean response, and what it was.

    python -m benchmarks.unseen [--draws 8] [--known 4,7,15]

Simulated cells; each perturbation in turn is held out, with every combination that it is in, and
known by its vector alone. Of the vectors four numbers tell of the response, all or among twelve
idle ones, around zero or far from it. No network is trained. Printed is the squared error of the
expected shifts over that of expecting nothing, over all genes and held-out conditions, less the
noise of the measured means: 1 is as good as nothing, 0 is the truth. Beside the mean response as
it is stands the one that knows embeddings by their deviations from the middle alone.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import pandas as pd
from anndata import AnnData

from benchmarks.held_out_shifts import squares
from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data.config import SimulateConfig
from cfmvc.data.embeddings import EMBEDDINGS
from cfmvc.data.simulate import SEPARATOR, simulate
from cfmvc.models.context import ContextEncoder
from cfmvc.models.mean_response import MeanResponse
from cfmvc.stages.flow import vectors_of
from cfmvc.stages.response import fit_response
from cfmvc.stages.vae import TrainingCells

N_TELLING, N_IDLE, FAR = 4, 12, 10.0
VECTORS = ("telling", "telling, far from 0", "telling and idle", "telling and idle, far from 0")


def drawn(n_perturbations: int, seed: int) -> AnnData:
    """Return simulated cells: with few perturbations also combinations of two."""
    n_pairs = 2 if n_perturbations < 10 else 0
    changed = {
        "n_perturbations": n_perturbations,
        "n_combinations": n_pairs,
        "n_interactive": 0,
        "embedding_dim": N_TELLING,
        "seed": seed,
    }
    section = read_yaml(default_params_file())["simulate"] | changed
    return simulate(parse_section(SimulateConfig, section, "simulate"))[0]


def vectors(telling: pd.DataFrame, kind: str, seed: int) -> pd.DataFrame:
    """Return the vectors that are given for the ones that the response follows."""
    rng = np.random.default_rng((seed, 4))  # apart from the draws of the simulation
    idle = rng.normal(size=(len(telling), N_IDLE if "idle" in kind else 0))
    given = np.hstack([telling.to_numpy(), idle])
    far = FAR * rng.normal(size=given.shape[1]) if "far" in kind else 0.0
    return pd.DataFrame(given + far, index=telling.index)


def held_out(cells: AnnData) -> Iterator[AnnData]:
    """Yield the same cells again and again, one perturbation after the other in the test."""
    parts = cells.obs["perturbation"].astype(str).str.split(SEPARATOR, regex=False)
    for label in cells.uns[EMBEDDINGS].index:
        is_out = parts.map(lambda some, label=label: label in some)
        cells.obs["split"] = np.where(is_out, "test", "train")
        yield cells


def learnt(cells: TrainingCells, library: float) -> tuple[MeanResponse, MeanResponse]:
    """Return the mean response, and the one that knows deviations from the middle alone."""
    assert cells.embeddings is not None
    given = vectors_of(cells.embeddings, cells.vocabulary)
    context = ContextEncoder(1, 1, len(given), embedding_dim=given.shape[1]).double()
    context.embed(given)
    deviation, zero = context.embedding.numpy(), context.zero.numpy()
    found = [fit_response([cells.train], library, deviation, (), origin) for origin in (zero, None)]
    assert found[0] is not None
    assert found[1] is not None
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=8, help="simulated data sets of each kind")
    parser.add_argument("--known", default="4,7,15", help="numbers of known perturbations")
    arguments = parser.parse_args()
    print("| known | vectors | as it is | from the middle alone |\n|---|---|---:|---:|")
    for n_known in map(int, arguments.known.split(",")):
        screens = [drawn(n_known + 1, seed) for seed in range(arguments.draws)]
        telling = [cells.uns[EMBEDDINGS] for cells in screens]
        for kind in VECTORS:
            sums = np.zeros(3)
            for seed, (cells, own) in enumerate(zip(screens, telling, strict=True)):
                cells.uns[EMBEDDINGS] = vectors(own, kind, seed)
                sums += sum(squares(fold, learnt) for fold in held_out(cells))
            ratios = sums[:2] / sums[2]
            print(f"| {n_known} | {kind} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
