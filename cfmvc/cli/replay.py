"""``cfmvc replay-nan``: the first non-finite step of a training, done again."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cfmvc.cli.importing import uncollected


def replay_command(
    what: Annotated[
        str,
        typer.Argument(metavar="RUN_ID_OR_BUNDLE", help="An MLflow run, or a black box's folder."),
    ],
    project: Annotated[
        Path, typer.Option(help="Project whose params.yaml names the store of the run.")
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Do the first non-finite step of a training again, and say where and why it failed.

    Exits with 1 where this machine's numbers differ from those that were recorded.

    Example: cfmvc replay-nan .cfmvc/nan/train_vae-step-412
    """
    with uncollected():  # torch comes along
        from cfmvc.cli.replaying import replay

    result = replay(what, project)
    print(json.dumps(result, indent=2) if as_json else result["text"])
    if not result["is_reproduced"]:
        raise typer.Exit(1)
