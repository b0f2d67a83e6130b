"""Several workers of one study on this machine, each a process of its own."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfmvc.errors import CfmvcError
from cfmvc.workers import read_order, say, work_together


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
        work_together(__name__, [self._order()] * self.n_workers)

    def _order(self) -> dict[str, Any]:
        seconds = None if self.deadline is None else self.deadline - time.monotonic()
        timeout = None if seconds is None else max(seconds, 1e-3)  # 0 is no time to set
        tune = {**self.params["tune"], "study": self.study, "timeout": timeout}
        return {"workspace": str(self.workspace), "params": {**self.params, "tune": tune}}


def main() -> None:
    """Be a worker: read what to do, and work on it until it is done, or nobody waits for it."""
    order = read_order()
    from cfmvc.tuning.tune import StudyAtHand

    try:
        at_hand = StudyAtHand.open(Path(order["workspace"]), order["params"])
        timeout = at_hand.search.config.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        at_hand.worker(deadline, say).work()
    except CfmvcError as error:
        print(f"worker: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
