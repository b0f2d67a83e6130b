"""``cfmvc registry``: the versions of a model, and what each came from."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfmvc.errors import BrokenChainError

if TYPE_CHECKING:
    from cfmvc.registry.proof.link import Chain

app = typer.Typer(help="The versions of a registered model.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `verify` a command of its own, also while it is the only one."""


@app.command("verify")
def verify_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="VERSION_OR_RUN",
            help="A version's number, models:/NAME/VERSION, an alias (champion), or a run's id.",
        ),
    ],
    project: Annotated[Path, typer.Option(help="Folder of the project.")] = Path(),
    name: Annotated[
        str | None,
        typer.Option(help="Name of the model, if it is not register.name of params.yaml."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Prove what a version, or a run, came from.

    From the version to its run, dvc.lock, the data, the git commit, the parameters and the
    environment: every hash is computed again where the files are there, and the first link that
    does not hold is named. Nothing is changed. The exit code is 0 if the chain holds, 7 if it is
    broken, 5 if the registry does not answer, 2 if there is no such version.
    """
    from cfmvc.registry.verify import verify

    chain = verify(what, project, name=name)
    print(json.dumps(chain.as_json(), indent=2) if as_json else _in_words(chain))
    if chain.broken is not None:
        raise typer.Exit(BrokenChainError.exit_code)


def _in_words(chain: "Chain") -> str:
    marks = {"ok": "ok", "broken": "BROKEN", "not checked": "-"}
    width = max(len(link.name) for link in chain.links)
    lines = [f"{marks[link.state]:6}  {link.name:{width}}  {link.detail}" for link in chain.links]
    return "\n".join([*lines, "", f"{chain.what}: {chain.verdict}"])
