"""Runs that say RUNNING although their process is gone: a SIGKILL leaves them so."""

import socket
from typing import Any

from cfmvc.tracking.access import denial
from cfmvc.tracking.parents import PROCESS_TAG, close_parent
from cfmvc.tracking.process import ProcessIdentity
from cfmvc.tracking.spool import spools
from cfmvc.tracking.store import Store


def sweep(store: Store) -> list[dict[str, Any]]:
    """Mark the runs of this host whose process is gone as KILLED, and return which they were.

    Only runs that carry our tag ``cfmvc.process`` are touched: neither those of other hosts, nor
    those that others started. A run with records still in the spool ends when they are sent.
    """
    spooled = {spool.header.uid for spool in spools(store.home)}
    killed = []
    condition = (
        f"attributes.status = 'RUNNING' and tags.`{PROCESS_TAG}` LIKE '{socket.gethostname()}:%'"
    )
    for run in list(store.find_runs(store.experiment_ids(), condition)):
        process = ProcessIdentity.parse(run.data.tags[PROCESS_TAG])
        if process is None or not process.is_here() or process.is_alive():
            continue
        if run.data.tags.get("cfmvc.uid") in spooled:
            continue
        if _end(store, run.info.run_id):
            killed.append({"stage": run.info.run_name, "run_id": run.info.run_id})
    return killed


def _end(store: Store, run_id: str) -> bool:
    """Mark a run as KILLED; False if that is another user's to do."""
    try:
        store.client.set_terminated(run_id, "KILLED")
        ended = store.client.get_run(run_id)
        close_parent(store, ended, "KILLED", ended.info.end_time)
    except Exception as error:
        if denial(error) is None:
            raise
        return False
    return True
