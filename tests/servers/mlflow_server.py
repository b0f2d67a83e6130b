"""A real MLflow server on loopback, which can be killed and started again."""

import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.leash import Leashed
from tests.servers.ports import HOST, free_ports

_SMALL = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class Server:
    """``mlflow server`` on a port of its own, with its store in a folder unless told otherwise.

    Parameters
    ----------
    folder
        For its log, its files and its SQLite database.
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
        self._process: Leashed | None = None

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self._port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", HOST, "--port", str(self._port), *self._options]
        self._process = Leashed(command, self._folder / "server.log", self._environment)
        self._process.wait_until(self._is_healthy)

    def kill(self) -> None:
        """Kill it with all its workers, without a word."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return True
        except OSError:
            return False
