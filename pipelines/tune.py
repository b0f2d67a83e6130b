"""Stage ``tune``: the study of the section ``tune``, gone on with up to its number of trials.

Plain ``dvc repro`` is for the pipeline, and tunes nothing: a study takes as long as twenty
pipelines. It is carried out where it is asked for by name: ``dvc repro tune``. DVC runs both alike,
so that the command line has to be asked, and what is not asked for has to be quick.
"""

import sys
from pathlib import Path

from cfmvc.errors import CfmvcError
from cfmvc.tracking.process import dvc_command
from cfmvc.tuning.files import BEST, FOLDER, TRIALS, write_nothing

_STAGE = "tune"


def main() -> None:
    command = dvc_command()
    if command is not None and not is_asked_for(command):
        write_nothing(Path.cwd())
        print("no study is carried out, for none was asked for: `dvc repro tune`")
        if "exec-run" in command:  # of an experiment in its queue DVC does not say what was asked
            print("DVC's queue carries none out: `cfmvc tune` does", file=sys.stderr)
        return
    try:
        from cfmvc.cli.tuning import study_text, tuned  # torch, MLflow and Optuna come along
    except ModuleNotFoundError as error:
        if error.name not in ("cmaes", "optuna"):
            raise
        sys.exit(f"{_STAGE}: a study needs {error.name}; pip install 'cfmvc[tune]'")
    try:
        print(study_text(tuned(Path.cwd(), {}, [], n_workers=1, with_test=True)))
    except CfmvcError as error:
        print(f"{_STAGE}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def is_asked_for(command: list[str]) -> bool:
    """Return whether a DVC command names the stage (``dvc.yaml:tune`` too) or what it makes."""
    named = {word.rpartition(":")[2].rstrip("/") for word in command}
    return not named.isdisjoint({_STAGE, *map(str, (FOLDER, BEST, TRIALS))})


if __name__ == "__main__":
    main()
