"""The work behind ``cfmvc summary``."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from cfmvc.errors import CfmvcError
from cfmvc.files import read_json
from cfmvc.tracking.config import sqlite_file


def read_summary(project: Path) -> dict[str, Any]:
    """Collect what the stages wrote.

    Raises
    ------
    CfmvcError
        If the pipeline has not run to the end.
    """
    results = project / "results"
    needed = [
        project / "data" / "prepared" / "split.json",
        results / "evaluate.json",
        results / "registered.json",
        results / "evaluation.txt",
    ]
    missing = [str(path.relative_to(project)) for path in needed if not path.is_file()]
    if missing:
        raise CfmvcError(f"no result yet ({', '.join(missing)} missing); run `dvc repro` first")
    return {
        "split": read_json(needed[0]),
        "evaluation": read_json(needed[1]),
        "registered": read_json(needed[2]),
        "table": needed[3].read_text(),
    }


def print_summary(result: dict[str, Any], project: Path) -> None:
    """Say what was built, how good it is, and where to look."""
    # Labels are the user's: neither [brackets] nor :colons: in them mean anything.
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    split, registered = result["split"], result["registered"]
    held_out = "; ".join(" x ".join(map(str, entry.values())) for entry in split["held_out"][:6])
    console.print()
    console.rule("cfmvc: what was built")
    console.print(f"data        {split['data']} (md5 {split['data_md5'][:12]})")
    console.print(f"held out    {held_out or split['kind']}")
    console.print(
        f"model       models:/{registered['name']}@{registered['alias']} "
        f"(version {registered['version']})"
    )
    console.rule("how good it is, on the held-out cells")
    print(result["table"].rstrip())
    console.rule("where to look")
    if (activation := activation_command()) is not None:
        console.print(f"{activation}   first, so that this shell knows the commands")
    console.print(f"{_runs(registered['tracking_uri'], project)}   runs, curves, pictures")
    console.print(f"{project / 'results' / 'report.html'}   the evaluation as one page")
    console.print(f"{project / 'results' / 'per_condition.csv'}   every condition by itself")
    there = "" if is_here(project) else f" --project {shlex.quote(str(project))}"
    promote = f"cfmvc registry promote {registered['alias']}{there}"
    console.print(f"{promote}   champion, if it is better than all")
    console.print("dvc plots show; dvc metrics show   the same figures, for comparisons")


def activation_command() -> str | None:
    """Return what makes the commands of this environment known to the shell, if it is not active.

    `make` works in the environment without activating it.
    """
    prefix = Path(sys.prefix)
    script = prefix / "bin" / "activate"
    active = os.environ.get("VIRTUAL_ENV")
    is_active = active is not None and Path(active).resolve() == prefix.resolve()
    if sys.prefix == sys.base_prefix or is_active or not script.is_file():
        return None
    here = Path.cwd()
    shown = script.relative_to(here) if script.is_relative_to(here) else script
    return f"source {shlex.quote(str(shown))}"


def is_here(project: Path) -> bool:
    """Return whether the project is the working folder."""
    return project.resolve() == Path.cwd()


def _runs(uri: str, project: Path) -> str:
    if uri.startswith("http"):
        return uri
    file = sqlite_file(uri)
    if file is not None and not file.is_absolute() and not is_here(project):
        uri = f"sqlite:///{project.resolve() / file}"
    return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
