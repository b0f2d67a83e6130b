"""Runs, in MLflow: logged to disk first, sent by a thread, never waited for."""

from cfmvc.tracking.config import TrackingConfig
from cfmvc.tracking.run_link import RunLink, find_run, read_link
from cfmvc.tracking.spool_tracker import SpoolTracker
from cfmvc.tracking.stage_run import Terminated, stage_run
from cfmvc.tracking.tracker import NullTracker, Tracker

__all__ = [
    "NullTracker",
    "RunLink",
    "SpoolTracker",
    "Terminated",
    "Tracker",
    "TrackingConfig",
    "find_run",
    "read_link",
    "stage_run",
]
