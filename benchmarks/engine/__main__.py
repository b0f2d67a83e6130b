"""Run benchmarks of the engine, print the table, and keep it in ``benchmarks/results``.

python -m benchmarks.engine [--rows stage1,stage2] [--rounds 5]
"""

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

from rich.console import Console

from benchmarks.engine.machine import machine, when
from benchmarks.engine.results import FOLDER, keep, show
from benchmarks.engine.row import Row
from benchmarks.engine.setting import Setting
from benchmarks.engine.table import BENCHMARKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(BENCHMARKS), help="names, joined by commas")
    parser.add_argument("--rounds", type=int, default=5, help="paired rounds a row")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the results")
    arguments = parser.parse_args()
    names = [name.strip() for name in arguments.rows.split(",") if name.strip()]
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; valid: {', '.join(BENCHMARKS)}")
    setting, measured, rows = Setting(arguments.rounds), {}, list[Row]()
    for name in names:
        origin, started = when(), time.perf_counter()
        found = import_module(BENCHMARKS[name]).run(setting)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        as_json = [row.as_json() for row in found]
        measured[name] = {**origin, "n_rounds": setting.n_rounds, "rows": as_json}
        rows += found
        # After each one: an interrupted run keeps what it has measured.
        keep(measured, machine(), arguments.results)
    show(rows, Console(width=None if sys.stdout.isatty() else 150))


if __name__ == "__main__":
    main()
