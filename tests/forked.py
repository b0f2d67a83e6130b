"""Real processes that start in no time: forked from one that has imported the slow libraries.

They are killed and signalled like any others; what they save is the seconds in which Python reads
torch and MLflow.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "torch",
        "mlflow",
        "sqlalchemy",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.model_registry.sqlalchemy_store",
        "mlflow.cli",
        "mlflow.server",
        "dvc.cli",
        "dvc.repo.experiments",
        "networkx",
        "cfmvc.stages.flow",
        "cfmvc.tracking.run",
        "cfmvc.registry.verify",
        "cfmvc.cli.app",
        "cfmvc.cli.benchmarking",
        "cfmvc.cli.fitting",
        "cfmvc.cli.promoting",
        "cfmvc.cli.tuning",
    ]
)


def forked(
    target: Callable[..., Any],
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
    daemon: bool = False,
) -> BaseProcess:
    """Return a process, not yet started, that calls a function in this environment, or in another.

    Left alone it would have that in which some test before has started the server.
    """
    environment = dict(os.environ if environment is None else environment)
    return PROCESSES.Process(target=_call, args=(environment, target, arguments), daemon=daemon)


def _call(environment: dict[str, str], target: Callable[..., Any], arguments: tuple) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


class ForkedModule:
    """``python -m MODULE ARGUMENTS`` as a process of its own, with the interface of ``Popen``.

    Parameters
    ----------
    module, arguments
        What follows ``python -m``.
    cwd, environment
        Where it runs, and in what environment.
    is_split
        Whether stderr is told apart, instead of being part of stdout.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        is_split: bool = False,
    ) -> None:
        self._logs = [self._new_log() for _ in range(1 + is_split)]
        logs = (self._logs[0], self._logs[-1])
        self._process = forked(_run, module, list(arguments), cwd, logs, environment=environment)
        self._process.start()

    def _new_log(self) -> Path:
        handle, log = tempfile.mkstemp(prefix="forked-")
        os.close(handle)
        weakref.finalize(self, Path(log).unlink, missing_ok=True)
        return Path(log)

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, or minus the signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, or None."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; to a process that has ended, nothing."""
        if self._process.exitcode is None:
            with suppress(ProcessLookupError):  # it may have ended since
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 120) -> int:
        """Wait for its end."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self._process.exitcode

    def wait_for(self, words: str, timeout: float = 120) -> None:
        """Wait until it has printed something."""
        deadline = time.monotonic() + timeout
        while words not in self._logs[0].read_text():
            if self._process.exitcode is not None or time.monotonic() > deadline:
                raise TimeoutError(self.communicate(0))
            time.sleep(0.01)

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Wait for its end, and return what it has printed, and on stderr if that is told apart."""
        self.wait(timeout)
        return self._logs[0].read_text(), self._logs[1].read_text() if self._logs[1:] else ""


def _run(
    module: str,
    arguments: list[str],
    cwd: Path,
    logs: tuple[Path, Path],
) -> None:
    os.setsid()
    for descriptor, log in zip((1, 2), logs, strict=True):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), descriptor)
    os.chdir(cwd)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
