"""The files that a study leaves in its project."""

from pathlib import Path

from cfmvc.files import atomic_path

FOLDER = Path("results/tune")
BEST, TRIALS = FOLDER / "best_params.yaml", FOLDER / "trials.csv"
FIRST_COLUMNS = ["trial", "state", "seconds"]
NOTHING = """\
# No study yet: `cfmvc tune` or `dvc repro tune` makes one.
"""


def write_results(workspace: Path, best: str, trials: str | None = None) -> None:
    """Write both files; without a table of the trials the other one alone."""
    contents = {BEST: best} if trials is None else {BEST: best, TRIALS: trials}
    for path, content in contents.items():
        with atomic_path(workspace / path) as made:
            made.write_text(content)


def write_nothing(workspace: Path) -> None:
    """Write files that say so, where there are none."""
    if not (workspace / BEST).is_file() or not (workspace / TRIALS).is_file():
        write_results(workspace, NOTHING, ",".join(FIRST_COLUMNS) + "\n")
