"""``mlflow server`` in a single process, forked from one that has imported MLflow.

The command would start an interpreter for the server beside its own; together they read MLflow for
ten seconds of a core. What is served, and with which settings, is the command's own affair.
"""

import ctypes
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import mlflow.server
from mlflow.cli import cli

_PR_SET_PDEATHSIG = 1


def main() -> None:
    # The fork server ends with the tests, in whatever way they end, and this with it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    mlflow.server._exec_cmd = _become
    cli(["server", *sys.argv[1:]])


def _become(command: Sequence[str], extra_env: Mapping[str, str], **_: Any) -> None:
    """Run ``PYTHON -m uvicorn ARGUMENTS`` in this process."""
    _, _, module, *arguments = command
    os.environ.update(extra_env)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    main()
