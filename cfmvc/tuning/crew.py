"""Several workers of one study on this machine, each a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfmvc.errors import CfmvcError


@dataclass(frozen=True)
class Crew:
    """Starts workers and waits for them; they end with this process, however it ends.

    Parameters
    ----------
    n_workers
        How many.
    workspace, params, study
        What they work on.
    deadline
        Moment of the monotonic clock after which no trial is begun.
    """

    n_workers: int
    workspace: Path
    params: dict[str, Any]
    study: str
    deadline: float | None

    def work(self) -> None:
        """Wait until all workers have ended.

        One that dies is not replaced: the others repeat its trial.

        Raises
        ------
        CfmvcError
            If all of them have failed.
        """
        workers = [self._start() for _ in range(self.n_workers)]
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
            raise CfmvcError(f"all {self.n_workers} workers have failed (exit codes {codes})")

    def _start(self) -> subprocess.Popen[bytes]:
        seconds = None if self.deadline is None else self.deadline - time.monotonic()
        timeout = None if seconds is None else max(seconds, 1e-3)  # 0 is no time to set
        tune = {**self.params["tune"], "study": self.study, "timeout": timeout}
        order = {"workspace": str(self.workspace), "params": {**self.params, "tune": tune}}
        worker = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE)
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(order).encode() + b"\n")
        worker.stdin.flush()  # left open: its end tells the worker that we are gone
        return worker


def main() -> None:
    """Be a worker: read what to do, and work on it until it is done, or nobody waits for it."""
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_other_side, daemon=True).start()
    from cfmvc.tuning.tune import StudyAtHand

    try:
        at_hand = StudyAtHand.open(Path(order["workspace"]), order["params"])
        timeout = at_hand.search.config.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        at_hand.worker(deadline, lambda words: print(words, file=sys.stderr, flush=True)).work()
    except CfmvcError as error:
        print(f"worker: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _end_with_the_other_side() -> None:
    while os.read(sys.stdin.fileno(), 1024):  # not sys.stdin: its lock would outlive this thread
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
