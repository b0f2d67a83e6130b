"""``cfmvc registry``: versions, who is champion, and why."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Versions of the model: which one is champion, why, and back again.\n\n"
    "A version becomes champion if it is better than every baseline and than the present champion, "
    "by more than chance, on the held-out cells of this project.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Project = Annotated[Path, typer.Option(help="Folder of the project.")]
Called = Annotated[str, typer.Argument(metavar="VERSION", help="Its number, or an alias.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command("list")
def list_command(project: Project = Path(), as_json: AsJson = False) -> None:
    """Print all versions, with their aliases and figures."""
    from cfmvc.cli.registering import rows_of_versions, versions_table
    from cfmvc.registry.registry import Registry

    rows = rows_of_versions(Registry.of_project(project))
    print(json.dumps(rows, indent=2) if as_json else versions_table(rows))


@app.command("show")
def show_command(version: Called, project: Project = Path(), as_json: AsJson = False) -> None:
    """Print all that is known of a version."""
    from cfmvc.cli.registering import details, details_text
    from cfmvc.registry.registry import Registry

    found = details(Registry.of_project(project), version)
    print(json.dumps(found, indent=2) if as_json else details_text(found))


@app.command("compare")
def compare_command(
    version: Called,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The other one, likewise.")],
    project: Project = Path(),
    as_json: AsJson = False,
) -> None:
    """Print the figures of two versions, each as registered, side by side.

    They may have been measured on different cells; `promote` measures both on the same.
    """
    from cfmvc.cli.registering import compared, compared_text
    from cfmvc.registry.registry import Registry

    found = compared(Registry.of_project(project), version, other)
    print(json.dumps(found, indent=2) if as_json else compared_text(found))


@app.command("promote")
def promote_command(
    version: Called = "candidate",
    project: Project = Path(),
    force: Annotated[
        bool, typer.Option("--force", help="Do not ask the gate; --why is written down.")
    ] = False,
    why: Annotated[str, typer.Option(metavar="TEXT", help="Why, in a sentence.")] = "",
) -> None:
    """Make a version champion, if the gate lets it.

    The exit code is 3 if it does not; the reasons are printed, and kept in the MLflow run `promote`
    and in the history.
    """
    from cfmvc.cli.promoting import forced, promoted
    from cfmvc.errors import ConfigError

    if force and not why.strip():
        raise ConfigError('--force needs a reason that is written down: --why "..."')
    if why and not force:
        raise ConfigError("--why goes with --force: the gate gives reasons of its own")
    print(forced(project, version, why) if force else promoted(project, version))


@app.command("rollback")
def rollback_command(
    why: Annotated[str, typer.Option(metavar="TEXT", help="Why, in a sentence.")] = "",
    project: Project = Path(),
) -> None:
    """Make the version champion that the present one has replaced."""
    from cfmvc.cli.promoting import rolled_back

    print(rolled_back(project, why))


@app.command("history")
def history_command(project: Project = Path(), as_json: AsJson = False) -> None:
    """Print who was champion when, who decided it, and on what evidence."""
    from cfmvc.cli.registering import history_table, rows_of_history
    from cfmvc.registry.registry import Registry

    rows = rows_of_history(Registry.of_project(project))
    print(json.dumps(rows, indent=2) if as_json else history_table(rows))


@app.command("verify")
def verify_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="VERSION_OR_RUN",
            help="A version's number, models:/NAME/VERSION, an alias (champion), or a run's id.",
        ),
    ],
    project: Project = Path(),
    name: Annotated[
        str | None,
        typer.Option(help="Name of the model, if it is not register.name of params.yaml."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove what a version, or a run, came from.

    From the version to its run, dvc.lock, the data, the git commit, the parameters and the
    environment: every hash is computed again where the files are there, and the first link that
    does not hold is named. Nothing is changed. The exit code is 0 if the chain holds, 7 if it is
    broken, 5 if the registry does not answer, 2 if there is no such version.
    """
    from cfmvc.cli.registering import chain_text
    from cfmvc.errors import BrokenChainError
    from cfmvc.registry.verify import verify

    chain = verify(what, project, name=name)
    print(json.dumps(chain.as_json(), indent=2) if as_json else chain_text(chain))
    if chain.broken is not None:
        raise typer.Exit(BrokenChainError.exit_code)


@app.command("doctor")
def doctor_command(project: Project = Path(), as_json: AsJson = False) -> None:
    """Look whether the registry is as its history says, and mend it where it is not.

    The exit code is 1 if something is broken that only a person can mend.
    """
    from cfmvc.registry.doctor import BROKEN, examine
    from cfmvc.registry.registry import Registry

    findings = examine(Registry.of_project(project))
    rows = [{"state": finding.state, "words": finding.words} for finding in findings]
    text = "\n".join(f"{row['state']:8}{row['words']}" for row in rows)
    print(json.dumps(rows, indent=2) if as_json else text)
    if any(finding.state == BROKEN for finding in findings):
        raise typer.Exit(1)
