"""Has a stage's spool sent while the stage works, by a process of its own or by a thread."""

import sys
from pathlib import Path

from cfmvc.tracking.delivery import Delivery
from cfmvc.tracking.sender import Sender
from cfmvc.tracking.sender_process import RemoteSender, running
from cfmvc.tracking.spool import Spool


class Shipper:
    """Has one spool sent in the background.

    Parameters
    ----------
    spool
        The spool of this process.
    workspace
        The project's folder.
    """

    def __init__(self, spool: Spool, workspace: Path) -> None:
        self._spool = spool
        self._delivery = Delivery()
        # Who has MLflow already has paid for it, and is no training.
        is_paid = "mlflow" in sys.modules and running() is None
        self._sender = (Sender if is_paid else RemoteSender)(spool, workspace, self._delivery)

    def start(self) -> None:
        """Begin to send."""
        self._sender.start()

    def wait_for_run(self, seconds: float) -> str:
        """Return the id of the MLflow run, once it exists.

        Raises
        ------
        TrackingError
            If the store does not take the run in time, or lets nobody in.
        """
        return self._delivery.wait_for_run(seconds)

    def close(self, seconds: float) -> str | None:
        """Send the rest, and return why it could not be sent; None if all is sent.

        Waits ``seconds`` at most; two seconds for a store that has never answered, and not at all
        for one that has failed to.
        """
        self._sender.finish()
        reason = self._delivery.wait_for_rest(seconds)
        if reason is None:
            self._spool.close()
        return reason
