"""``cfmvc sync``: send to MLflow what a dead server, or a killed process, has left on disk."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cfmvc.tracking.leftovers import SyncReport


def sync_command(
    project: Annotated[Path, typer.Option(help="Folder of the project.")] = Path(),
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Send everything here, and not to the address that each run was started with.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Send also what processes of other hosts have written: of those nobody here knows "
            "whether they still run.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Send spooled records to MLflow, and mark dead runs as KILLED.

    Dead are the runs whose processes were killed.
    Nothing is sent twice: stop it, and run it again, as often as you like. Stages at work are left
    alone. The exit code is 0 if nothing else is left, 5 if a store does not answer or refuses.
    """
    from cfmvc.config import default_params_file, read_yaml, section_of
    from cfmvc.errors import TrackingError
    from cfmvc.tracking.config import TrackingConfig, absolute_uri, home_of, tracking_uri
    from cfmvc.tracking.leftovers import sync
    from cfmvc.tracking.spool import spool_root

    params = project / "params.yaml"
    if not params.is_file() and spool_root(home_of(project)).is_dir():
        params = default_params_file()  # as `cfmvc fit --track` took them there
    config = section_of(read_yaml(params), "tracking", TrackingConfig)
    report = sync(
        home_of(project),
        tracking_uri(config, project),
        None if to is None else absolute_uri(to, project),
        force,
    )
    print(json.dumps(report.as_json(), indent=2) if as_json else _in_words(report))
    if report.left:
        raise typer.Exit(TrackingError.exit_code)


def _in_words(report: "SyncReport") -> str:
    lines = [f"sent    {run['stage']}: {run['n_records']} records" for run in report.sent]
    lines += [f"killed  {run['stage']}: its process is gone" for run in report.killed]
    lines += [
        f"left    {run['stage']}: {run['n_records']} records: {run['reason']}"
        for run in report.left
    ]
    lines += [
        f"at work {run['stage']}: {run['n_records']} records: {run['reason']}"
        for run in report.at_work
    ]
    return "\n".join(lines) or "nothing to send"
