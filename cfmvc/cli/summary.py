"""``cfmvc summary``: what the pipeline has built, how good it is, and where to look."""

import json
from pathlib import Path
from typing import Annotated

import typer


def summary_command(
    project: Annotated[Path, typer.Option(help="Folder of the project.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show the last result of `dvc repro`.

    The model, the baselines, the registered version, and where to look.
    """
    from cfmvc.cli.summarising import print_summary, read_summary

    result = read_summary(project)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        print_summary(result, project)
