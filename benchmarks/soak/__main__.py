"""Train for many steps under faults, and count how it ended; exit code 1 if any end was wrong.

python -m benchmarks.soak [--steps 10000] [--seed 0] [--epochs 10] [--kinds SIGKILL,SIGTERM]
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.soak.cells import Plan
from benchmarks.soak.episode import Score
from benchmarks.soak.soak import KINDS, Soak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000, help="optimiser steps in all")
    parser.add_argument("--seed", type=int, default=0, help="of kinds, doors and places")
    parser.add_argument("--epochs", type=int, default=10, help="of each stage of each training")
    parser.add_argument("--kinds", default=",".join(KINDS), help="names, joined by commas")
    arguments = parser.parse_args()
    kinds = [name.strip() for name in arguments.kinds.split(",") if name.strip()]
    unknown = [name for name in kinds if name not in KINDS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; valid: {', '.join(KINDS)}")
    folder = Path(tempfile.mkdtemp(prefix="cfmvc-soak-"))
    soak = Soak(folder, Plan(arguments.epochs), arguments.seed, kinds)
    scores = soak.run(arguments.steps, lambda line: print(line, file=sys.stderr, flush=True))
    show(scores, Console(width=None if sys.stdout.isatty() else 120))
    if any(score.wrong for score in scores.values()):
        sys.exit(1)
    shutil.rmtree(folder)


def show(scores: dict[str, Score], console: Console) -> None:
    """Print the table, and in words what was wrong or could not be tried."""
    table = Table("fault", "injected", "right model", "right error", "wrong", "steps")
    columns = [
        [s.n_injected, s.n_right_models, s.n_right_errors, len(s.wrong), s.n_steps]
        for s in scores.values()
    ]
    for name, row in zip(scores, columns, strict=True):
        table.add_row(name, *map(str, row))
    sums = [sum(column) for column in zip(*columns, strict=True)]
    table.add_row("all", *map(str, sums), style="bold")
    console.print(table)
    console.print(
        "A fault is answered at once with a right error, or the training goes on; at the end the "
        "model has the bytes of the same training undisturbed.",
        highlight=False,
    )
    for name, score in scores.items():
        for told in dict.fromkeys(score.skipped):
            console.print(f"{name}: not tried: {told}", markup=False, highlight=False)
        for told in score.wrong:
            console.print(f"WRONG: {told}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
