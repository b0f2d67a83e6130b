"""``python -m cfmvc.tracking.sender_worker``: sends the spools that it is given on stdin.

One JSON line an order: ``{"number": 0, "spool": FOLDER, "workspace": FOLDER, "environment": {}}``
begins a delivery, ``{"number": 0}`` says that its stage is over. Answers on stdout: the number, and
the fields of :class:`~cfmvc.tracking.delivery.Standing`.
"""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from cfmvc.tracking.delivery import Delivery, Standing
from cfmvc.tracking.sender import Sender
from cfmvc.tracking.spool import Spool


def main() -> None:
    """Take orders until the other side is gone, and end then, amid whatever is being sent."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the one that it sends for decides
        signal.signal(number, signal.SIG_IGN)
    news = _stdout_of_our_own()
    deliveries: dict[int, Delivery] = {}
    for line in sys.stdin.buffer:
        order = json.loads(line)
        if "spool" in order:
            deliveries[order["number"]] = _begun(order, news)
        else:
            deliveries.pop(order["number"]).begin_closing()
    os._exit(0)  # no thread is waited for


def _begun(order: dict[str, Any], news: BinaryIO) -> Delivery:
    if order["environment"] != dict(os.environ):
        os.environ.clear()
        os.environ.update(order["environment"])

    def tell(standing: Standing) -> None:
        # one write a line: several threads tell
        news.write(json.dumps({"number": order["number"], **asdict(standing)}).encode() + b"\n")

    delivery = Delivery(tell)
    spool = Spool.open(Path(order["spool"]))
    if spool is None:
        delivery.report(failure=f"{order['spool']} is gone")
    else:
        Sender(spool, Path(order["workspace"]), delivery).start()
    return delivery


def _stdout_of_our_own() -> BinaryIO:
    """Keep stdout for the news: what MLflow or a driver prints goes to stderr."""
    ours = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return ours


if __name__ == "__main__":
    main()
