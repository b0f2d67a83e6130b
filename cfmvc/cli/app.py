"""All commands under one roof, and errors printed for people."""

import os
import sys
from typing import Annotated

import typer

from cfmvc import __version__
from cfmvc.cli import (
    benchmark,
    data,
    fit,
    perturb_region,
    predict,
    registry,
    replay,
    summary,
    sync,
    tune,
)
from cfmvc.errors import CfmvcError, TrackingError

# Packages of the extra `pipeline`, which a light installation does without.
_OPTIONAL = ("filelock", "matplotlib", "mlflow", "optuna", "psutil", "sklearn", "sqlalchemy")

_INTERRUPTED = 130

app = typer.Typer(
    name="cfmvc",
    help="Models of how single cells respond to perturbations.\n\n"
    "With DVC and MLflow: `cfmvc data add FILE`, then `dvc repro`. Without: `cfmvc fit`, then "
    "`cfmvc predict`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # drawing boxes would take longer to import than all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.add_typer(registry.app, name="registry")
app.add_typer(tune.app, name="tune")
app.add_typer(benchmark.app, name="benchmark")
app.command("simulate")(data.simulate_command)
app.command("fit")(fit.fit_command)
app.command("predict")(predict.predict_command)
app.command("perturb-region")(perturb_region.perturb_region_command)
app.command("replay-nan")(replay.replay_command)
app.command("summary")(summary.summary_command)
app.command("sync")(sync.sync_command)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"cfmvc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Take the options that every command shares."""


def _tell_of_the_store(error: Exception) -> None:
    """End with a word where MLflow's store has failed amid a command; else raise what was raised.

    Raises
    ------
    Exception
        If it is no error of MLflow's.
    """
    mlflow = sys.modules.get("mlflow.exceptions")
    if mlflow is None or not isinstance(error, mlflow.MlflowException):
        raise error
    from cfmvc.tracking.store import first_line

    print(f"error: MLflow's store: {first_line(error)}", file=sys.stderr)
    sys.exit(TrackingError.exit_code)


def main() -> None:
    """Run the command line; errors meant for people are printed bare, with their exit code."""
    # Before torch is imported. Threads that wait for each other by spinning take many times as long
    # where another process has one of the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except CfmvcError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in _OPTIONAL:
            raise
        extra = "tune" if error.name == "optuna" else "pipeline"
        print(
            f"error: this command needs {error.name}; pip install 'cfmvc[{extra}]'",
            file=sys.stderr,
        )
        sys.exit(CfmvcError.exit_code)
    except MemoryError as error:
        print(f"error: not enough memory ({error}); ask for less at once", file=sys.stderr)
        sys.exit(CfmvcError.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(CfmvcError.exit_code)
    except Exception as error:
        _tell_of_the_store(error)
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # typer has heard it first, and says nothing
            print("interrupted", file=sys.stderr)
        raise
