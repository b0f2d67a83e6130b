"""What measured combinations tell of others, and doses of other doses: the mean response alone.

    python -m benchmarks.not_additive [--draws 4]

Simulated cells; no network is trained. Combinations are held out in four parts: those that add, and
of those that do not each kind that the simulation knows. Beside the mean response as it is stands
the one that no combination was shown to. Doses are held out one after the other, where they span
three decades and act by a curve of Hill, and where they act in proportion; beside it stands the one
that takes all of them to be in proportion. Printed is the squared error of the expected shifts over
that of expecting nothing, over all genes and held-out conditions, less the noise of the measured
means: 1 is as good as nothing, 0 is the truth.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from anndata import AnnData

from benchmarks.held_out_shifts import Learn, squares
from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data.config import SimulateConfig
from cfmvc.data.simulate import SEPARATOR, simulate
from cfmvc.models.mean_response import MeanResponse
from cfmvc.stages.response import dose_curves, fit_response
from cfmvc.stages.vae import TrainingCells

SCREEN = {"n_cells": 10_000, "n_batches": 2, "n_cell_types": 1, "n_perturbations": 8}
COMBINATIONS: dict[str, dict[str, Any]] = {
    "additive": {"n_interactive": 0},
    "limited": {"interaction": "limited", "perturbed_fraction": 0.5},
    "company": {"interaction": "company"},
    "own": {"interaction": "own"},
}
DOSES: dict[str, dict[str, Any]] = {
    "concentrations": {"doses": [10.0, 100.0, 1000.0, 10_000.0], "half_dose": 300.0},
    "in proportion": {"doses": [0.25, 0.5, 1.0, 2.0]},
}
N_PARTS = 4


def drawn(seed: int, **changed: Any) -> AnnData:
    """Return simulated cells."""
    section = read_yaml(default_params_file())["simulate"] | SCREEN | changed | {"seed": seed}
    return simulate(parse_section(SimulateConfig, section, "simulate"))[0]


def combinations_held_out(cells: AnnData) -> Iterator[AnnData]:
    """Yield the same cells again and again, with other combinations in the test."""
    label = cells.obs["perturbation"].astype(str)
    names = [name for name in sorted(set(label)) if SEPARATOR in name]
    for part in range(N_PARTS):
        cells.obs["split"] = np.where(label.isin(names[part::N_PARTS]), "test", "train")
        yield cells


def doses_held_out(cells: AnnData, place: int) -> Iterator[AnnData]:
    """Yield the cells with one dose in the test."""
    dose = cells.obs["dose"].to_numpy()
    held_out = np.unique(dose[dose > 0])[place]
    cells.obs["split"] = np.where(dose == held_out, "test", "train")
    yield cells


def of_combinations(cells: TrainingCells, library: float) -> tuple[MeanResponse, MeanResponse]:
    """Return the mean response, and the one that has seen single perturbations alone."""
    is_single = np.count_nonzero(cells.train.conditions, axis=1)[cells.train.condition] < 2
    tables = (cells.train, cells.train.subset(np.flatnonzero(is_single)))
    return _both(*(fit_response([table], library, _untold(cells)) for table in tables))


def of_doses(cells: TrainingCells, library: float) -> tuple[MeanResponse, MeanResponse]:
    """Return the mean response, and the one for which all doses act in proportion."""
    curves = dose_curves([cells.train], library)
    fits = (fit_response([cells.train], library, _untold(cells), doses=d) for d in (curves, None))
    return _both(*fits)


def _untold(cells: TrainingCells) -> np.ndarray:
    return np.zeros((cells.train.conditions.shape[1], 0))


def _both(
    one: MeanResponse | None, other: MeanResponse | None
) -> tuple[MeanResponse, MeanResponse]:
    assert one is not None
    assert other is not None
    return one, other


def printed(what: str, folds: Iterator[AnnData], learn: Learn) -> None:
    sums = sum((squares(fold, learn) for fold in folds), np.zeros(3))
    print(f"| {what} | {sums[0] / sums[2]:.3f} | {sums[1] / sums[2]:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4, help="simulated data sets of each kind")
    seeds = range(parser.parse_args().draws)
    print("| combinations | seen | as it is | of single ones alone |\n|---|---|---:|---:|")
    for kind, changed in COMBINATIONS.items():
        for n, n_seen in ((8, 6), (20, 15)):
            sizes = {"n_combinations": n, "n_interactive": n} | changed
            folds = (f for seed in seeds for f in combinations_held_out(drawn(seed, **sizes)))
            printed(f"{kind} | {n_seen}", folds, of_combinations)
    print("\n| doses | held out | as it is | in proportion |\n|---|---|---:|---:|")
    for kind, changed in DOSES.items():
        for place in (1, 2, 3):
            sizes = {"n_combinations": 0, "n_interactive": 0} | changed
            folds = (f for seed in seeds for f in doses_held_out(drawn(seed, **sizes), place))
            printed(f"{kind} | {changed['doses'][place]:g}", folds, of_doses)


if __name__ == "__main__":
    main()
