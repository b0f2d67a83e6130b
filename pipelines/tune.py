"""Stage ``tune``: the study of the section ``tune``, gone on with up to its number of trials.

Plain ``dvc repro`` is for the pipeline, and tunes nothing: a study takes as long as twenty
pipelines. It is carried out where it is asked for by name: ``dvc repro tune``. DVC runs both alike,
so that the command line has to be asked, and what is not asked for has to be quick.
"""

import sys
from pathlib import Path

from cfmvc.errors import CfmvcError
from cfmvc.tracking.process import dvc_command
from cfmvc.tuning.files import write_nothing

_STAGE = "tune"


def main() -> None:
    command = dvc_command()
    if command is not None and _STAGE not in command:
        write_nothing(Path.cwd())
        print("no study is carried out, for none was asked for: `dvc repro tune`")
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


if __name__ == "__main__":
    main()
