"""What ``mlflow run . [-e ENTRY] [-P section.key=value ...]`` runs.

Without parameters: ``dvc repro ENTRY`` in this folder. With parameters: a DVC experiment in a
folder of its own, so that neither ``params.yaml`` nor the results here change; its runs, metrics
and models are in MLflow, and ``dvc exp show`` lists it.
"""

import os
import subprocess
import sys
from pathlib import Path

from cfmvc.config import override, read_yaml
from cfmvc.errors import CfmvcError
from cfmvc.tracking.config import absolute_uri


def main() -> None:
    entry, *options = sys.argv[1:]
    try:
        settings = as_settings(options)
        override(read_yaml(Path("params.yaml")), settings)
    except CfmvcError as error:
        sys.exit(f"error: {error}")
    # The store's address must hold in the experiment's folder as well.
    os.environ["MLFLOW_TRACKING_URI"] = absolute_uri(os.environ.get("MLFLOW_TRACKING_URI"))
    command = [sys.executable, "-m", "dvc"]
    if settings:
        changes = [part for setting in settings for part in ("--set-param", setting)]
        command += ["exp", "run", "--temp", *changes, entry]
    else:
        command += ["repro", entry]
    sys.exit(subprocess.run(command).returncode)


def as_settings(options: list[str]) -> list[str]:
    """Turn ``--vae.beta 0.5`` (how MLflow passes ``-P vae.beta=0.5``) into ``vae.beta=0.5``."""
    if len(options) % 2 or not all(name.startswith("--") for name in options[::2]):
        raise CfmvcError(f"expected pairs of --section.key and value, got: {' '.join(options)}")
    names = (name.removeprefix("--") for name in options[::2])
    return [f"{name}={value}" for name, value in zip(names, options[1::2], strict=True)]


if __name__ == "__main__":
    main()
