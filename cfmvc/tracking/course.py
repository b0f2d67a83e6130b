"""How a training or a generation went, in one look."""

from collections.abc import Iterable, Mapping
from typing import Any

from cfmvc.tracking.tracker import Tracker
from cfmvc.training.loop import History


def log_course(tracker: Tracker, name: str, history: History, prefix: str = "") -> None:
    """Log the figures of the epoch that was kept as ``final/...``, and the curves of the losses.

    Parameters
    ----------
    tracker
        Of the run.
    name
        What was trained.
    history
        Its course.
    prefix
        Before each name, where one run holds several trainings (``vae_``).
    """
    from cfmvc.evaluation.training_figures import loss_curves  # matplotlib comes along

    final = {key: value for key, value in history.summary().items() if value is not None}
    step = int(history.rows[-1]["step"]) if history.rows else 0
    tracker.log_metrics({f"final/{prefix}{key}": float(v) for key, v in final.items()}, step)
    tracker.log_figure(loss_curves(history.rows, name), f"{prefix}loss_curves.png")


def log_velocity_events(tracker: Tracker, events: Iterable[Mapping[str, Any]]) -> None:
    """Log the non-finite velocities of a generation, each at its step of the integration."""
    for event in events:
        tracker.log_event("velocity", dict(event), int(event["step"]))
