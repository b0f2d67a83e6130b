"""``cfmvc benchmark``: the model beside the baselines, on what it has not seen."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cfmvc.cli.importing import uncollected
from cfmvc.cli.own_options import expect_no_options

app = typer.Typer(
    help="Train on what is left of a data set, and predict what was held out, fold by fold.\n\n"
    "The model and every simple baseline on each task that the data allow, with the spread over "
    "seeds and intervals over conditions. What was computed before is not computed again, and a "
    "benchmark that was stopped goes on where it was. `cfmvc benchmark tasks` lists tasks and "
    "folds.\n\n"
    "Example: cfmvc benchmark --data kang.h5ad --task held_out_cell_type --seeds 3",
    invoke_without_command=True,
    rich_markup_mode=None,
)

Data = Annotated[
    Path | None,
    typer.Option(
        metavar="F.h5ad",
        help="The cells, named as the section `data` says (other names: --set "
        "data.perturbation=guide, --set data.control=NT, ...) [default: simulated ones, of which "
        "the truth is known].",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A parameter, e.g. flow.lr=1e-3; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.callback()
def benchmark_command(
    context: typer.Context,
    data: Data = None,
    task: Annotated[
        str | None, typer.Option(help="The task [default: every one that the data allow].")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings of each fold [default: benchmark.n_seeds]."),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="This seed alone; may be repeated.")
    ] = None,
    folds: Annotated[
        list[str] | None,
        typer.Option(help="Names or numbers of folds, separated by commas [default: all]."),
    ] = None,
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results; of several tasks, each in a folder in it [default: "
            "results/benchmark/DATA/TASK]."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that work at once.")] = 1,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Tell MLflow.")] = True,
    as_json: AsJson = False,
) -> None:
    """Carry out a benchmark, unless a command under `benchmark` was called."""
    if context.invoked_subcommand is not None:
        expect_no_options(context)
        return
    with uncollected():  # torch comes along
        from cfmvc.cli.benchmarking import Order, benchmarked, benchmarks_text

    order = Order(data, task, seeds, seed or [], folds or [], settings or [], out, workers, track)
    result = benchmarked(Path.cwd(), order)
    print(json.dumps(result.as_json(), indent=2) if as_json else benchmarks_text(result))


@app.command("tasks")
def tasks_command(data: Data = None, settings: Settings = None, as_json: AsJson = False) -> None:
    """List the tasks with their folds, and which of them the data do not allow."""
    with uncollected():
        from cfmvc.cli.benchmarking import described, tasks_text

    found = described(Path.cwd(), data, settings or [])
    print(json.dumps(found, indent=2) if as_json else tasks_text(found))


@app.command("table")
def table_command(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Results of `cfmvc benchmark`, of one task."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the table.")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Put folds and seeds together that were computed apart, e.g. by stages of DVC."""
    with uncollected():
        from cfmvc.benchmark.report import to_json
        from cfmvc.benchmark.text import to_text
        from cfmvc.cli.benchmarking import collected

    summary = collected(Path.cwd(), folders, out, settings or [])
    print(json.dumps(to_json(summary), indent=2) if as_json else to_text(summary))
