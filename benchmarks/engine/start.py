"""How long one waits at the command line before something happens."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.engine.cells import bench_cells
from benchmarks.engine.inference import N_STEPS, conditions_of, trained
from benchmarks.engine.profiling import imports_of
from benchmarks.engine.rounds import spread
from benchmarks.engine.row import Bar, Row
from benchmarks.engine.setting import Setting
from cfmvc.models import save_bundle

_CALL = "import sys; from cfmvc.cli import main; sys.argv = ['cfmvc', *sys.argv[1:]]; main()"
_LOADED = (
    "import sys\nfrom cfmvc.cli import main\nsys.argv = ['cfmvc', '--help']\n"
    "try:\n    main()\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules)"
)


def run(setting: Setting) -> list[Row]:
    """Measure ``cfmvc --help`` and ``cfmvc predict`` of one cell."""
    return [_help(setting), _predict(setting)]


def _help(setting: Setting) -> Row:
    command = [*_command(), "--help"]
    seconds = [_seconds(command) for _ in range(2 * setting.n_rounds + 1)][1:]
    done = subprocess.run(
        [sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True
    )
    return Row(
        "cfmvc --help, whole process",
        spread(seconds),
        unit="s",
        bar=Bar(0.3, "at_most", "ours", " s"),
        holds={"torch is not imported": done.stdout.strip().endswith("False")},
        notes=[f"{len(seconds)} processes after one that warmed the file cache"],
    )


def _predict(setting: Setting) -> Row:
    cells = bench_cells()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_bundle(trained(cells), folder / "model")
        conditions_of(cells, 1).to_csv(folder / "one.csv", index=False)
        command = [
            *_command(),
            "predict",
            *("--model", str(folder / "model"), "--conditions", str(folder / "one.csv")),
            *("--out", str(folder / "one.h5ad"), "--n-steps", str(N_STEPS), "--force"),
        ]
        seconds = [_seconds(command) for _ in range(setting.n_rounds + 1)][1:]
        row = Row(
            "cfmvc predict, CPU, whole process for one cell",
            spread(seconds),
            unit="s",
            bar=Bar(3.0, "at_most", "ours", " s"),
            notes=[
                f"model of {cells.train.n_genes:,} genes; starts Python, loads torch and the "
                f"model, generates one cell, writes the file; {len(seconds)} processes after a "
                "first one"
            ],
        )
        return row.explained(
            lambda: imports_of(["-c", _CALL, *command[command.index("predict") :]])
        )


def _command() -> list[str]:
    """Return how users call cfmvc: the script beside this Python, where it is installed."""
    script = Path(sys.executable).with_name("cfmvc")
    return [str(script)] if script.is_file() else [sys.executable, "-c", _CALL]


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True, env=os.environ)
    return time.perf_counter() - started
