"""Print our metrics beside those of `cell-eval` on the same cells, as a Markdown table.

    pip install -c constraints.txt -e '.[cell-eval]'
    python -m benchmarks.cell_eval [--data FOLDER_OF_THE_H5AD_FILES]

The cells are one stratum of the embedded data and, with --data, a replicate of Papalexi 2021; what
is predicted of each perturbation are its cells in the other batches.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cell_eval.rows import Row, exact_rows, usual_rows
from benchmarks.cell_eval.sides import Sides, hold_out, sides_of
from benchmarks.reference_folds import papalexi_folds
from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data.config import SimulateConfig
from cfmvc.data.simulate import CONTROL, simulate
from cfmvc.evaluation import EvaluateConfig
from cfmvc.evaluation.conditions import Stratum


def markdown(rows: list[Row]) -> str:
    """Return the rows as a table: means over perturbations, and the largest difference of any."""
    lines = [
        "| ours | `cell-eval` | ours | theirs | largest difference | the same? |",
        "|---|---|---:|---:|---:|---|",
    ]
    for row in rows:
        means = (row.our_values.mean(), row.their_values.mean())
        same = "yes" if row.is_same else "no"
        cells = [
            row.ours,
            row.theirs,
            *(f"{mean:.6f}" for mean in means),
            f"{row.largest_difference:.1e}",
            f"{same}: {row.remark}" if row.remark else same,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def inputs(params: Path, data: Path | None) -> Iterator[tuple[str, Sides]]:
    """Yield the name of each stratum, and its two sides."""
    values = read_yaml(params)
    config = parse_section(EvaluateConfig, values["evaluate"], "evaluate")
    cells, _ = simulate(parse_section(SimulateConfig, values["simulate"], "simulate"))
    stratum = Stratum(*cells.obs[["batch", "cell_type"]].astype(str).min())
    yield (
        f"Embedded data, {stratum}",
        sides_of(hold_out(cells, stratum, CONTROL), config, CONTROL),
    )
    if data is not None:
        fold = next(papalexi_folds(data))
        yield "Papalexi 2021, first replicate", sides_of(fold, config, CONTROL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the .h5ad files")
    parser.add_argument("--params", type=Path, default=default_params_file())
    arguments = parser.parse_args()
    for name, sides in inputs(arguments.params, arguments.data):
        sizes = sorted(len(cells) for cells in sides.true.values())
        print(
            f"**{name}**: {len(sides.true)} perturbations of {sizes[0]} to {sizes[-1]} cells, "
            f"{len(sides.controls)} controls, {len(sides.genes)} genes\n"
        )
        print(markdown([*exact_rows(sides), *usual_rows(sides)]), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
