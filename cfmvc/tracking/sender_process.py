"""A process that sends spools: MLflow is imported there, and takes no time of a training.

A thread would hold the interpreter that the training needs, for seconds while MLflow is imported
and for a little at each request. The process ends with the one that started it, at once, however
that one ends.
"""

import atexit
import itertools
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from cfmvc.tracking.delivery import Delivery
from cfmvc.tracking.spool import Spool

_MODULE = "cfmvc.tracking.sender_worker"
_processes: dict[int, "SenderProcess"] = {}  # by the process that started them: forks do not share


class SenderProcess:
    """The other process, and what it says of each spool that it was given."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._numbers = itertools.count()
        self._deliveries: dict[int, Delivery] = {}
        # A session of its own: Ctrl-C is the stage's alone, whose end is still to be sent.
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, name="cfmvc-news", daemon=True)
        self._listener.start()

    def send(self, spool: Spool, workspace: Path, delivery: Delivery) -> int:
        """Have a spool sent, and return the number of its delivery."""
        number = next(self._numbers)
        with self._guard:
            self._deliveries[number] = delivery
        order = {"spool": str(spool.folder.resolve()), "workspace": str(workspace.resolve())}
        # What is in the environment now: a password may have been set since the process began.
        self._say({"number": number, **order, "environment": dict(os.environ)})
        return number

    def finish(self, number: int) -> None:
        """Say that the stage of a delivery is over."""
        self._say({"number": number})

    @property
    def is_alive(self) -> bool:
        """Whether it can still be given anything."""
        return self._process.poll() is None and self._listener.is_alive()

    def end(self) -> None:
        """End the process, whatever it is doing."""
        assert self._process.stdin is not None
        with self._guard, suppress(OSError):  # it was dead before
            self._process.stdin.close()
        self._process.wait()
        self._listener.join()

    def _say(self, order: dict[str, object]) -> None:
        assert self._process.stdin is not None
        try:
            with self._guard:
                self._process.stdin.write(json.dumps(order).encode() + b"\n")
                self._process.stdin.flush()
        except (OSError, ValueError):  # it has died, or was ended
            self._give_up()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as news:
            for line in news:
                standing = json.loads(line)
                number = standing.pop("number")
                with self._guard:
                    delivery = self._deliveries.get(number)
                    if standing["is_done"]:  # nothing follows, and a study has many
                        self._deliveries.pop(number, None)
                if delivery is not None:
                    delivery.report(**standing)
        self._give_up()

    def _give_up(self) -> None:
        with self._guard:
            deliveries, self._deliveries = list(self._deliveries.values()), {}
        for delivery in deliveries:
            delivery.report(failure="the process that sends has died")


class RemoteSender:
    """Has one spool sent by the process; to a stage the same as a thread that sends.

    Parameters
    ----------
    spool, workspace, delivery
        As for :class:`~cfmvc.tracking.sender.Sender`.
    """

    def __init__(self, spool: Spool, workspace: Path, delivery: Delivery) -> None:
        self._spool = spool
        self._workspace = workspace
        self._delivery = delivery
        self._process: SenderProcess | None = None
        self._number = -1

    def start(self) -> None:
        """Begin to send; a machine that starts no process any more does not stop the stage."""
        try:
            self._process = running() or _begun()
        except OSError as error:
            self._delivery.report(failure=f"no process to send with: {error}")
            return
        self._number = self._process.send(self._spool, self._workspace, self._delivery)

    def finish(self) -> None:
        """Have the rest sent without a pause: the stage is over."""
        if self._process is not None:
            self._process.finish(self._number)


def running() -> SenderProcess | None:
    """Return the process that sends for this one, if there is one."""
    process = _processes.get(os.getpid())
    return process if process is not None and process.is_alive else None


def _begun() -> SenderProcess:
    process = _processes[os.getpid()] = SenderProcess()
    atexit.register(process.end)
    return process
