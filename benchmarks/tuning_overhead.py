"""What a study costs beside its trials' own work: Optuna, MLflow, and our own code.

    python -m benchmarks.tuning_overhead [--n-trials 20]

In a folder of its own, on simulated cells, a study of the flow alone (one VAE) with the shipped
sizes. A trial's own work is training and scoring; what is left of the study's time, from when it is
opened to its results, is overhead. The first trial trains the VAE, and is not counted; nor are
imports.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from cfmvc.config import default_params_file, read_yaml
from cfmvc.data.canonical import write_canonical
from cfmvc.data.cell_ids import CELL_ID, cell_ids
from cfmvc.data.config import SimulateConfig, SplitConfig
from cfmvc.data.simulate import simulate
from cfmvc.data.splits import assign_split
from cfmvc.files import md5_of_file, write_json
from cfmvc.tuning.trainer import Outcome, Trainer
from cfmvc.tuning.tune import PREPARED, SPLIT, tune

SPACE = {
    "flow.lr": {"low": 2e-4, "high": 5e-3, "log": True},
    "flow.dropout": {"low": 0.0, "high": 0.3},
    "flow.weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
}


def prepare(folder: Path, params: dict[str, Any]) -> None:
    """Write simulated cells as the stage ``prepare`` leaves them."""
    cells = simulate(SimulateConfig(**params["simulate"]))[0]
    data = params["data"]
    split = assign_split(
        cells.obs, SplitConfig(**params["split"]), data["separator"], data["control"]
    )
    cells.obs["split"] = pd.Categorical(split.labels)
    cells.obs[CELL_ID] = cell_ids(cells)
    (folder / PREPARED).parent.mkdir(parents=True)
    write_canonical(cells, folder / PREPARED)
    write_json(folder / SPLIT, {**split.to_json(), "data_md5": md5_of_file(folder / PREPARED)})


class Clock:
    """Wraps :meth:`Trainer.run` to know what trials took themselves."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._run: Callable[..., Outcome] = Trainer.run

    def __call__(self, trainer: Trainer, *arguments: Any) -> Outcome:
        started = time.perf_counter()
        try:
            return self._run(trainer, *arguments)
        finally:
            self.seconds.append(time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-trials", type=int, default=20)
    arguments = parser.parse_args()
    params = read_yaml(default_params_file())
    params["tune"] |= {"space": SPACE, "pruner": "none", "warm_start": []}
    clock = Clock()
    Trainer.run = lambda *given: clock(*given)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, params)
        for n_trials in (1, 1 + arguments.n_trials):
            params["tune"]["n_trials"] = n_trials
            started = time.perf_counter()
            tune(folder, params, with_test=False)
            seconds = time.perf_counter() - started
    own = sum(clock.seconds[1:])
    print(f"{arguments.n_trials} trials of the flow on one VAE: {seconds:.1f} s")
    print(f"training and scoring: {own:.1f} s, {own / arguments.n_trials:.2f} s a trial")
    print(f"overhead: {seconds - own:.1f} s, {(seconds - own) / seconds:.1%} of the study")


if __name__ == "__main__":
    main()
