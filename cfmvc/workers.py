"""Several processes that share some work on this machine, and end with the one that began it."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from cfmvc.errors import CfmvcError


def work_together(module: str, orders: Sequence[dict[str, Any]]) -> None:
    """Start a process for each order, and wait until all have ended; one that dies stays dead.

    Parameters
    ----------
    module
        What is run, ``python -m MODULE``: it takes its order with :func:`read_order`.
    orders
        As JSON has them.

    Raises
    ------
    CfmvcError
        If all of them have failed.
    """
    workers = [_start(module, order) for order in orders]
    try:
        codes = [worker.wait() for worker in workers]
    except BaseException:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait()
        raise
    finally:
        for worker in workers:
            if worker.stdin is not None:
                worker.stdin.close()
    if all(codes):
        raise CfmvcError(f"all {len(workers)} workers have failed (exit codes {codes})")


def read_order() -> dict[str, Any]:
    """Return what this worker is to do; from now on it ends when nobody waits for it any more."""
    order: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_other_side, daemon=True).start()
    return order


def say(words: str) -> None:
    """Tell the user; stdout is for results."""
    print(words, file=sys.stderr, flush=True)


def _start(module: str, order: dict[str, Any]) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE)
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(order).encode() + b"\n")
    worker.stdin.flush()  # left open: its end tells the worker that we are gone
    return worker


def _end_with_the_other_side() -> None:
    while os.read(sys.stdin.fileno(), 1024):  # not sys.stdin: its lock would outlive this thread
        pass
    os.kill(os.getpid(), signal.SIGTERM)
