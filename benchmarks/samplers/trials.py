"""Real trials: carried out once, and kept as rows of a small text file."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pandas as pd

from benchmarks.samplers.cells import prepare, set_name, smaller
from cfmvc.errors import NonFiniteError
from cfmvc.tracking.tracker import NullTracker
from cfmvc.tuning.samplers import SeededByTrial
from cfmvc.tuning.search import Search
from cfmvc.tuning.space import Space, Values, merged
from cfmvc.tuning.trainer import Trainer
from cfmvc.tuning.tune import PREPARED, SPLIT
from cfmvc.tuning.vae_store import VaeStore
from cfmvc.tuning.validation import validation_of

FOLDER = Path(__file__).resolve().parent.parent / "results"
VALUE, SECONDS = "value", "seconds"


def file_of(name: str) -> Path:
    """Return where the trials of a set are kept."""
    return FOLDER / f"samplers-{name}.csv"


def looks_of(table: pd.DataFrame) -> list[str]:
    """Return the columns with the values seen on a trial's way, in their order."""
    return [name for name in table if str(name).startswith("look_")]


def seconds_at(look: str) -> str:
    """Return the column with the seconds from the trial's begin to a look."""
    return look.replace("look_", "seconds_at_")


def drawn(space: Space, n_trials: int) -> list[Values]:
    """Return the present parameters, and others drawn at random from the space."""
    study = optuna.create_study(sampler=SeededByTrial("random", 0, n_trials))
    study.enqueue_trial(space.warm({}))
    return [space.suggest(study.ask()) for _ in range(n_trials)]


def collect(data: str, params: dict[str, Any], n_trials: int) -> pd.DataFrame:
    """Carry out trials until the file has so many, and return them.

    Parameters
    ----------
    data
        ``sim``, or an ``.h5ad`` file.
    params
        As shipped.
    n_trials
        How many in all.
    """
    params = smaller(params)
    search, file = Search.of(params), file_of(set_name(data))
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)
        prepare(data, params, workspace)
        fraction = search.config.validation_fraction
        cells = validation_of(workspace / PREPARED, workspace / SPLIT, params, fraction)
        print(f"trials are scored on: {cells.held_out}", flush=True)
        store = VaeStore(workspace / "vae")
        trainer = Trainer(cells, store, search.config.n_cells, search.config.n_looks)
        rows = pd.read_csv(file).to_dict("records") if file.is_file() else []
        for number, values in enumerate(drawn(search.space, n_trials)):
            if number < len(rows):
                continue
            rows.append({"trial": number, **_carried_out(trainer, search, values)})
            table = _in_order(pd.DataFrame(rows), search.space)
            table.to_csv(file, index=False, float_format="%.6g")
            last = rows[-1]
            print(f"{number}: {last[VALUE]:.4g}, {last[SECONDS]:.1f} s", flush=True)
    return pd.read_csv(file)


def _carried_out(trainer: Trainer, search: Search, values: Values) -> dict[str, Any]:
    """Return a trial's parameters, its course, its value (NaN if it has none) and its seconds."""
    objective, started, row = search.objectives[0], time.perf_counter(), dict(values)

    def report(number: int, figures: Mapping[str, float]) -> None:
        row[f"look_{number}"] = objective.value(figures)
        row[seconds_at(f"look_{number}")] = time.perf_counter() - started

    row[VALUE] = float("nan")
    try:
        found = trainer.run(merged(search.params, values), NullTracker(), report)
        row[VALUE] = objective.value(found.figures)
    except NonFiniteError as error:
        print(f"not finite: {error}")
    row[SECONDS] = time.perf_counter() - started
    return row


def _in_order(table: pd.DataFrame, space: Space) -> pd.DataFrame:
    """Sort the columns: which looks there are is known only after some trials."""
    looks = sorted(looks_of(table))
    course = [name for look in looks for name in (look, seconds_at(look))]
    return table.reindex(columns=["trial", *space.entries, *course, VALUE, SECONDS])
