"""``cfmvc tune``: a study of parameters, and its best ones put into ``params.yaml``."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from cfmvc.cli.importing import uncollected
from cfmvc.cli.own_options import expect_no_options

app = typer.Typer(
    help="Search for better parameters of both stages.\n\n"
    "Trials are scored on conditions held out of the training cells; the section `tune` of "
    "params.yaml says what is searched. A study that was stopped goes on where it was; the same "
    "command on several machines, with one --storage, shares it. Writes "
    "results/tune/best_params.yaml and trials.csv.\n\n"
    "Example: cfmvc tune --n-trials 30 --workers 2",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def tune_command(
    context: typer.Context,
    n_trials: Annotated[
        int | None, typer.Option(help="Trials of the study in all [default: tune.n_trials].")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds after which no trial is begun.")
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(help="Name of the study [default: one for these data and parameters]."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Database of the study: sqlite:///FILE.db or postgresql+psycopg://..."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that work here at once.")] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter, e.g. tune.sampler=gp; may be repeated."),
    ] = None,
    with_test: Annotated[
        bool,
        typer.Option(
            "--test/--no-test", help="At the end, compare with the present parameters on the test."
        ),
    ] = True,
    register: Annotated[
        bool,
        typer.Option("--register", help="Train the best in full with DVC, and register it."),
    ] = False,
    promote: Annotated[
        bool, typer.Option("--promote", help="Register the best, and ask the gate for it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Carry out a study, unless a command under `tune` was called."""
    if context.invoked_subcommand is not None:
        expect_no_options(context)
        return
    with uncollected():  # torch comes along
        from cfmvc.cli.tuning import registered_best, study_text, tuned

    asked = {"n_trials": n_trials, "timeout": timeout, "study": study, "storage": storage}
    result = tuned(Path.cwd(), asked, settings or [], workers, with_test)
    print(json.dumps(result.as_json(), indent=2) if as_json else study_text(result))
    if register or promote:
        # behind JSON nothing else may stand
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            registered_best(Path.cwd(), result, settings or [], promote)


@app.command("apply")
def apply_command() -> None:
    """Put the best parameters into params.yaml, for review.

    Takes results/tune/best_params.yaml, and changes the lines of params.yaml that differ; comments
    and all other lines stay as they are. A warning says if the test of the study has not confirmed
    them, or if it was carried out with other values beside them.
    """
    from cfmvc.cli.applying import applied, doubts

    lines = applied(Path.cwd())
    for doubt in doubts(Path.cwd()):
        print(f"warning: {doubt}", file=sys.stderr)
    for line in lines:
        print(line)
