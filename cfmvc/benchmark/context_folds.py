"""Folds that hold out where perturbed cells were measured: a cell type, a batch, a region."""

import numpy as np
from numpy.typing import NDArray

from cfmvc.benchmark.config import BenchmarkConfig
from cfmvc.benchmark.folds import Design, Fold, NotAllowed, Region
from cfmvc.benchmark.knock_outs import clearest_knock_outs
from cfmvc.errors import listed


def cell_type_folds(design: Design, config: BenchmarkConfig) -> list[Fold]:
    """Hold out all perturbed cells of each cell type in turn."""
    folds = []
    for cell_type in sorted(set(design.labels["cell_type"])):
        is_test = design.seen_elsewhere(design.where("cell_type", cell_type))
        if (is_test & design.is_measured).any():
            folds.append(Fold(cell_type, f"all perturbed {cell_type}", is_test))
    if len(folds) < 2:
        raise NotAllowed("no perturbation is measured in two cell types with controls")
    return folds


def batch_folds(design: Design, config: BenchmarkConfig) -> list[Fold]:
    """Hold out the clearest perturbations of each batch in turn."""
    folds, label = [], design.labels["perturbation"]
    for batch in sorted(set(design.labels["batch"])):
        is_here, clearest = (design.labels["batch"] == batch).to_numpy(), list[str]()
        if (is_here & design.is_control).any():
            clearest = clearest_knock_outs(
                design.cells[is_here], design.control, config.n_knock_outs, config.min_cells_to_rank
            )
        is_test = design.seen_elsewhere(is_here & label.isin(clearest).to_numpy())
        words = f"{batch}: {listed(sorted(set(label[is_test])))}"
        folds.append(Fold(batch, words, is_test))  # an empty one is told of as left out
    if sum((fold.is_test & design.is_measured).any() for fold in folds) < 2:
        raise NotAllowed(
            "no perturbation is measured in two batches with controls, with "
            f"{config.min_cells_to_rank} cells each (benchmark.min_cells_to_rank)"
        )
    return folds


def region_folds(design: Design, config: BenchmarkConfig) -> list[Fold]:
    """Hold out the perturbed cells of each strip of the tissue in turn, along its first axis."""
    if "spatial" not in design.cells.obsm:
        raise NotAllowed("the cells have no coordinates (obsm, data.spatial)")
    x = np.asarray(design.cells.obsm["spatial"], dtype=np.float64)[:, 0]
    bounds = np.quantile(x, np.linspace(0.0, 1.0, config.n_regions + 1))
    folds = []
    for number in range(config.n_regions):
        low, high = bounds[number], bounds[number + 1]
        inside = _between(x, low, high, is_last=number == config.n_regions - 1)
        is_test = design.seen_elsewhere(inside & ~design.is_control)
        name = f"strip {number + 1} of {config.n_regions}"
        if (is_test & design.is_measured).any():
            words = f"perturbed cells where the first coordinate is {low:.3g} to {high:.3g}"
            folds.append(Fold(name, words, is_test, Region(inside, float(low), float(high))))
    if not folds:
        raise NotAllowed("no perturbation is measured in two regions of the tissue")
    return folds


def _between(x: NDArray[np.float64], low: float, high: float, is_last: bool) -> NDArray[np.bool_]:
    return (x >= low) & ((x <= high) if is_last else (x < high))
