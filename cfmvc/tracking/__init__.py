"""Runs, in MLflow: logged to disk first, sent in the background, never waited for.

The names are loaded at first use: who trains without tracking needs none of its packages.
"""

from importlib import import_module
from typing import Any

_OWNERS = {
    "NullTracker": "cfmvc.tracking.tracker",
    "RunLink": "cfmvc.tracking.run_link",
    "SpoolTracker": "cfmvc.tracking.spool_tracker",
    "Terminated": "cfmvc.tracking.run",
    "Tracker": "cfmvc.tracking.tracker",
    "TrackingConfig": "cfmvc.tracking.config",
    "find_run": "cfmvc.tracking.run_link",
    "read_link": "cfmvc.tracking.run_link",
    "stage_run": "cfmvc.tracking.run",
}

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


def __getattr__(name: str) -> Any:
    if name not in _OWNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OWNERS[name]), name)
