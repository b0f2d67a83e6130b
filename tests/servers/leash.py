"""A server that ends with whoever started it, in whatever way that one ends.

Run as a script it starts a command, and ends it and all its children once its own input closes:
that of a test process closes even when the process is killed.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

_START_SECONDS = 120
_END_SECONDS = 5


class Leashed:
    """A server at work.

    Parameters
    ----------
    command
        The server, in the foreground.
    log
        File for all that it says.
    environment
        Beside this process's own.
    end_with
        Signal that ends it; one that does not listen is killed.
    user
        System user to run it as; this one if not given.
    """

    def __init__(
        self,
        command: list[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        end_with: signal.Signals = signal.SIGKILL,
        user: str | None = None,
    ) -> None:
        self._log = log
        leash = [sys.executable, __file__, end_with.name, user or "", *command]
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                leash,
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C is for the tests, which then end this
            )

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Return when the server answers; raise with the end of its log if it does not."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if is_ready():
                return
            time.sleep(0.1)
        self.end()
        raise TimeoutError(self._log.read_text(errors="replace")[-3000:])

    def end(self) -> None:
        """End it with all its children."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def main() -> None:
    end_with, user, command = signal.Signals[sys.argv[1]], sys.argv[2], sys.argv[3:]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, user=user or None
    )
    threading.Thread(target=_end_with_input, args=(process, end_with), daemon=True).start()
    code = process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    sys.exit(abs(code))


def _end_with_input(process: "subprocess.Popen[bytes]", end_with: signal.Signals) -> None:
    sys.stdin.buffer.read()
    for number in (end_with, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
            return


if __name__ == "__main__":
    main()
