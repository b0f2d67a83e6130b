"""Folds that hold out what was done to the cells: a combination, a dose, a perturbation."""

import numpy as np

from cfmvc.benchmark.config import BenchmarkConfig
from cfmvc.benchmark.folds import Design, Fold, NotAllowed, dealt
from cfmvc.data.embeddings import EMBEDDINGS, find_embeddings
from cfmvc.errors import listed


def combination_folds(design: Design, config: BenchmarkConfig) -> list[Fold]:
    """Hold out each combination in turn whose parts are measured singly; of many, several."""
    single = set(design.labels["perturbation"][design.is_measured])
    folds = []
    for label, parts in design.parts.items():
        is_test = design.where("perturbation", label)
        if len(parts) > 1 and single.issuperset(parts) and (is_test & design.is_measured).any():
            folds.append(Fold(label, f"{label}, of which the parts are seen singly", is_test))
    if not folds:
        raise NotAllowed(
            "no combination has parts that are also measured singly (data.separator joins them)"
        )
    return dealt(folds, config.max_folds)


def dose_folds(design: Design, config: BenchmarkConfig) -> list[Fold]:
    """Hold out each dose between others in turn, and after that the largest one."""
    if "dose" not in design.cells.obs:
        raise NotAllowed("the cells have no dose (obs, data.dose)")
    dose = design.cells.obs["dose"].to_numpy(np.float64)
    cells = design.labels.assign(dose=dose)[design.is_measured & np.isfinite(dose)]
    seen = {label: sorted(set(some)) for label, some in cells.groupby("perturbation")["dose"]}
    label = design.labels["perturbation"]
    folds = []
    for value in sorted({value for doses in seen.values() for value in doses[1:-1]}):
        between = [name for name, doses in seen.items() if value in doses[1:-1]]
        is_test = (dose == value) & label.isin(between).to_numpy() & ~design.is_control
        folds.append(Fold(f"{value:g}", f"dose {value:g}: interpolation", is_test))
    largest = {name: doses[-1] for name, doses in seen.items() if len(doses) > 1}
    if not largest:
        raise NotAllowed("no perturbation is measured at two doses")
    is_test = (dose == label.map(largest).to_numpy(np.float64)) & ~design.is_control
    words = f"largest dose of each ({listed(sorted(set(largest.values())))}): extrapolation"
    return [*dealt(folds, config.max_folds), Fold("largest", words, is_test)]


def unseen_folds(design: Design, config: BenchmarkConfig) -> list[Fold]:
    """Hold out each perturbation in turn, in combinations too; of many, several."""
    embeddings = find_embeddings(design.cells, EMBEDDINGS, "perturbation")
    if embeddings is None:
        raise NotAllowed(f"the cells have no embeddings of perturbations (uns['{EMBEDDINGS}'])")
    singles = sorted({part for parts in design.parts.values() for part in parts})
    if missing := [name for name in singles if name not in embeddings.index]:
        raise NotAllowed(f"uns['{EMBEDDINGS}']: no vector of {listed(missing)}")
    measured = set(design.labels["perturbation"][design.is_measured])
    folds = []
    for name in singles:
        holding = [label for label, parts in design.parts.items() if name in parts]
        rest = measured.difference(holding)
        if measured.intersection(holding) and rest:
            is_test = design.labels["perturbation"].isin(holding).to_numpy()
            folds.append(Fold(name, f"{listed(holding)}, never seen", is_test))
    if not folds:
        raise NotAllowed("there is only one perturbation, and none left to learn from")
    return dealt(folds, config.max_folds)
