"""The model against cellflow-tools on Kang, a cell type held out, fold by fold.

    make cellflow-env
    python -m benchmarks.cellflow --data FOLDER_OF_THE_H5AD_FILES

Trains both sides, one seed after the other, and writes the page after each; what was trained is
kept in ``.cfmvc/benchmark``, so that a killed run goes on where it was.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cellflow.duel import Duel, with_rival
from benchmarks.cellflow.page import page, tables
from benchmarks.cellflow.side import PYTHON, Rival, Training
from benchmarks.engine.machine import machine, when
from benchmarks.engine.results import FOLDER
from cfmvc.benchmark.plan import Plan
from cfmvc.benchmark.summary import Summary
from cfmvc.benchmark.work import Work, score_store
from cfmvc.config import default_params_file, read_yaml, section_of
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.files import atomic_path
from cfmvc.tracking.config import home_of
from cfmvc.workers import say

TASK, FILE = "held_out_cell_type", "kang_pbmc_ifnb.h5ad"


def duel(plan: Plan, rival: Rival, workspace: Path) -> tuple[Duel, list[dict[str, Any]]]:
    """Train and score both sides with the plan's seeds, or read what is there.

    Parameters
    ----------
    plan
        Folds and seeds.
    rival
        The other side, working.
    workspace
        The project's folder.

    Returns
    -------
    Both sides, and what each training of CellFlow has told.
    """
    Work(plan, workspace, None).do(say)
    store, scores, told = score_store(workspace), [], []
    for job in plan.jobs:
        found, facts = rival.scores(job.fold, job.seed)
        scores.append(with_rival(store.get(job.key), found))
        told.append(facts)
        say(f"cellflow: {job.words}: energy distance {found['energy_distance'].mean():.3f}")
    return Duel(Summary(scores, section_of(plan.params, "evaluate", EvaluateConfig))), told


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    if not PYTHON.is_file():
        sys.exit("no environment of cellflow-tools: run `make cellflow-env`")
    workspace, params = Path.cwd(), read_yaml(given.params)
    seeds, started = list(range(given.seeds)), when()
    plan = Plan.of(TASK, given.data / FILE, params, given.folds, seeds)
    training = Training(n_iterations=given.iterations, lr=given.lr, width=given.width)
    kept = home_of(workspace) / ".cfmvc" / "benchmark" / "cellflow"
    with Rival(plan.data, params, training, kept).working() as rival:
        for n_seeds in range(1, given.seeds + 1):
            made, told = duel(replace(plan, seeds=seeds[:n_seeds]), rival, workspace)
            print("\n".join(tables(made)), flush=True)
            if given.out is not None or not given.folds:
                with atomic_path(given.out or FOLDER / "cellflow.md") as file:
                    file.write_text(page(made, training, told, machine(), started))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the .h5ad files")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each fold, both sides")
    parser.add_argument(
        "--iterations", type=int, default=Training.n_iterations, help="of CellFlow's training"
    )
    parser.add_argument("--lr", type=float, default=Training.lr, help="of CellFlow's Adam")
    parser.add_argument("--width", type=int, default=Training.width, help="of CellFlow's layers")
    parser.add_argument(
        "--folds", nargs="*", default=[], help="names or numbers; the page is then not written"
    )
    parser.add_argument("--out", type=Path, help="page to write [default: benchmarks/results]")
    parser.add_argument("--params", type=Path, default=default_params_file())
    return parser


if __name__ == "__main__":
    main()
