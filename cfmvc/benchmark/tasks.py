"""The tasks, in one table.

To add one: write a function that makes its folds (:data:`~cfmvc.benchmark.folds.FoldMaker`), and
put a line into :data:`TASKS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cfmvc.benchmark.config import BenchmarkConfig
from cfmvc.benchmark.context_folds import batch_folds, cell_type_folds, region_folds
from cfmvc.benchmark.folds import Design, Fold, FoldMaker, NotAllowed
from cfmvc.benchmark.label_folds import combination_folds, dose_folds, unseen_folds
from cfmvc.data.prepared import LEAST_CONTROLS
from cfmvc.errors import ConfigError, listed, suggest


@dataclass(frozen=True)
class Task:
    """Something that a model has to predict without having seen it.

    Parameters
    ----------
    meaning
        In one line.
    folds
        Makes its folds.
    simulated_with
        What the simulation must have, where no data are given: changes of the section
        ``simulate``, out of that section and ``benchmark``.
    """

    meaning: str
    folds: FoldMaker
    simulated_with: Callable[[dict[str, Any], BenchmarkConfig], dict[str, Any]] = (
        lambda section, config: {}
    )


_TOO_FEW = 2  # combinations: where one is held out, too few are left that tell of it

TASKS: dict[str, Task] = {
    "held_out_cell_type": Task(
        "each cell type in turn, of which only controls are seen", cell_type_folds
    ),
    "held_out_batch": Task(
        "the clearest perturbations of each batch or replicate in turn", batch_folds
    ),
    "held_out_combination": Task(
        "each combination in turn, of which only the parts are seen",
        combination_folds,
        lambda section, config: {} if section["n_combinations"] > _TOO_FEW else config.combinations,
    ),
    "held_out_dose": Task(
        "each dose between others in turn, and the largest",
        dose_folds,
        lambda section, config: {} if len(section["doses"]) > 1 else {"doses": config.doses},
    ),
    "unseen_perturbation": Task(
        "each perturbation in turn, of which only an embedding is known",
        unseen_folds,
        lambda section, config: (
            {} if section["embedding_dim"] else {"embedding_dim": config.embedding_dim}
        ),
    ),
    "spatial_region": Task(
        "each region of the tissue in turn, where only controls are seen",
        region_folds,
        lambda section, config: {"spatial": True},
    ),
}


def task_of(name: str) -> Task:
    """Return a task.

    Raises
    ------
    ConfigError
        If there is none of that name; lists the valid ones.
    """
    if name not in TASKS:
        raise ConfigError(f"no task '{name}'{suggest(name, TASKS)}; valid are {listed(TASKS)}")
    return TASKS[name]


def folds_of(
    name: str, design: Design, config: BenchmarkConfig, min_cells: int
) -> tuple[list[Fold], list[str]]:
    """Return a task's folds, and the names of those that are none: nothing there can be scored.

    Parameters
    ----------
    name
        Of the task.
    design
        The cells.
    config
        The section ``benchmark``.
    min_cells
        A condition with fewer cells is not scored (``evaluate.min_cells``).

    Raises
    ------
    NotAllowed
        If the data have none.
    """
    folds = task_of(name).folds(design, config)
    scorable = [fold for fold in folds if design.n_scorable(fold, min_cells)]
    if not scorable:
        raise NotAllowed(
            f"no held-out condition has {min_cells} cells (evaluate.min_cells) and "
            f"{LEAST_CONTROLS} controls"
        )
    kept = {fold.name for fold in scorable}
    return scorable, [fold.name for fold in folds if fold.name not in kept]


def chosen(folds: Sequence[Fold], asked: Sequence[str]) -> list[Fold]:
    """Return the folds asked for, by name or by number from 1; all, if none is asked for.

    An entry is a name, a number, or several of them separated by commas. Where a name is the number
    of another fold (clusters), ``name-3`` and ``number-3`` say which is meant.

    Raises
    ------
    ConfigError
        If there is no such fold.
    """
    by_name = {fold.name: fold for fold in folds}
    by_number = {str(number): fold for number, fold in enumerate(folds, start=1)}
    found: dict[str, Fold] = {}
    for entry in asked:
        is_one = entry in by_name or entry.removeprefix("name-") in by_name
        names = [entry] if is_one else [name.strip() for name in entry.split(",")]
        for name in names:
            fold = _meant(name, by_name, by_number)
            if fold is None:
                raise ConfigError(
                    f"no fold '{name}'{suggest(name, by_name)}; folds: {listed(by_name, 40)}, "
                    f"or their numbers 1 to {len(folds)}"
                )
            found[fold.name] = fold
    return [fold for fold in folds if not asked or fold.name in found]


def _meant(asked: str, by_name: dict[str, Fold], by_number: dict[str, Fold]) -> Fold | None:
    named, numbered = by_name.get(asked), by_number.get(asked)
    if named is not None and numbered is not None and named is not numbered:
        raise ConfigError(
            f"fold '{asked}': is the name of a fold, and the number of another one "
            f"('{numbered.name}'); write name-{asked} or number-{asked}"
        )
    kind, _, rest = asked.partition("-")
    explicit = {"name": by_name, "number": by_number}.get(kind, {}).get(rest)
    return named or numbered or explicit
