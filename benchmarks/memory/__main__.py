"""Print expected against measured peaks of the stages for a table of shapes.

python -m benchmarks.memory [--device cuda] [--parts]
"""

import argparse

from rich.console import Console
from rich.table import Table

from benchmarks.memory.case import cases, measured

_SHOWN = ("stage", "n_cells", "n_genes", "cells_per_step", "hidden_dim")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--parts", action="store_true", help="print what the peaks consist of")
    arguments = parser.parse_args()
    console, table = Console(), Table(*_SHOWN, "besides", "expected MiB", "measured MiB", "ratio")
    for case in cases(device=arguments.device):
        outcome = measured(case)
        others = {k: v for k, v in case.__dict__.items() if k not in (*_SHOWN, "device")}
        plain = type(case)().__dict__
        besides = ", ".join(f"{k}={v}" for k, v in others.items() if v != plain[k])
        figures = (f"{outcome.expected:.0f}", f"{outcome.measured:.0f}", f"{outcome.ratio:.2f}")
        table.add_row(*(str(getattr(case, name)) for name in _SHOWN), besides, *figures)
        if arguments.parts:
            console.print(outcome.table, highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()
