"""A training as a process, and the moment at which a fault strikes it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
_POLL_SECONDS = 0.003
_LONGEST_SECONDS = 600.0
# Nothing of the caller's MLflow may reach the trainings.
_OUTSIDE = ("MLFLOW", "CFMVC", "DVC", "GIT")


@dataclass(frozen=True)
class Place:
    """Where a fault strikes.

    Parameters
    ----------
    stage
        In this stage; None: anywhere in the life of the process.
    at
        At the first new checkpoint of this step or a later one; seconds where no stage is named.
    delay
        So many seconds after that.
    """

    stage: str | None
    at: float
    delay: float

    def __str__(self) -> str:
        if self.stage is None:
            return f"after {self.at:.2f} s"
        return f"{self.stage} step {self.at:.0f} + {self.delay:.3f} s"


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal), and all it printed."""

    code: int
    output: str

    def says(self, *words: str) -> bool:
        """Return whether all words were printed, and no traceback; line breaks do not count."""
        text = " ".join(self.output.split())
        return all(part in text for part in words) and "Traceback" not in text

    @property
    def last_line(self) -> str:
        """The last line printed."""
        return self.output.strip().rpartition("\n")[2]


class Running:
    """A process that trains.

    Parameters
    ----------
    command
        What follows Python on the command line.
    folder
        Where it runs.
    checkpoints
        Folder of its checkpoints, by stage.
    """

    def __init__(self, command: list[str], folder: Path, checkpoints: Path) -> None:
        self._checkpoints = checkpoints
        self._before = self._files()
        self._log = folder / "output.txt"
        kept = {n: v for n, v in os.environ.items() if not n.startswith(_OUTSIDE)}
        with self._log.open("w") as stream:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env={
                    **kept,
                    "PYTHONPATH": str(PROJECT),
                    "OMP_NUM_THREADS": "1",
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                },
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Return whether it still runs."""
        return self._process.poll() is None

    def waits(self, is_time: Callable[[], bool]) -> bool:
        """Wait until it is time; False if the process ends before."""
        while self.is_alive():
            if is_time():
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def reaches(self, place: Place) -> bool:
        """Wait for a place; False if the process ends before."""
        started = time.monotonic()
        if place.stage is None:
            return self.waits(lambda: time.monotonic() - started >= place.at)
        if not self.waits(lambda: self._newest_step(place.stage) >= place.at):
            return False
        time.sleep(place.delay)
        return self.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; to a process that has ended, nothing."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> Ended:
        """Wait for its end; one that hangs is killed, and says so."""
        try:
            code = self._process.wait(_LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._process.wait()
            return Ended(-999, f"{self._log.read_text()}\nstill there after {_LONGEST_SECONDS} s")
        return Ended(code, self._log.read_text())

    def _files(self) -> dict[Path, int]:
        """Return the checkpoints and their times: one that is written anew has another."""
        found = dict[Path, int]()
        # Folders and files come and go while they are looked at.
        with suppress(FileNotFoundError):
            for path in self._checkpoints.glob("*/step-*"):
                with suppress(OSError):
                    found[path] = path.stat().st_mtime_ns
        return found

    def _newest_step(self, stage: str | None) -> int:
        new = self._files().items() - self._before.items()
        return max((step_of(path) for path, _ in new if path.parent.name == stage), default=-1)


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's name."""
    return int(path.name.split("-")[1])
