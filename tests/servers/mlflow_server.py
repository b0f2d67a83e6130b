"""A real MLflow server on loopback, which can be killed and started again."""

import os
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.forked import ForkedModule
from tests.servers.ports import HOST, free_ports

_START_SECONDS = 120
_SMALL = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class Server:
    """``mlflow server`` on a port of its own, with its store in a folder unless told otherwise.

    Parameters
    ----------
    folder
        For its files and its SQLite database.
    backend
        Address of another database.
    artifacts
        Other place for files.
    options
        More words of the command line.
    environment
        More variables.
    """

    def __init__(
        self,
        folder: Path,
        backend: str | None = None,
        artifacts: str | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        (self._port,) = free_ports(1)
        self._options = ["--artifacts-destination", artifacts or str(folder / "files"), *options]
        self._environment = {
            **_SMALL,
            "MLFLOW_BACKEND_STORE_URI": backend or f"sqlite:///{folder / 'mlflow.db'}",
            **(environment or {}),
        }
        self._process: ForkedModule | None = None

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self._port}"

    def start(self) -> None:
        words = ["--workers", "1", "--host", HOST, "--port", str(self._port), *self._options]
        environment = {**os.environ, **self._environment}
        self._process = ForkedModule("tests.servers.a_server", words, self._folder, environment)
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise TimeoutError(self._process.communicate()[0][-3000:])
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return True
        except OSError:
            return False
