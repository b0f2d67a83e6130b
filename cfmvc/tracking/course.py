"""How a training or a generation went, in one look."""

from collections.abc import Iterable, Mapping
from typing import Any

from cfmvc.tracking.tracker import Tracker
from cfmvc.training.history import History

_FIGURES = ("best_epoch", "n_epochs", "nan_steps", "first_nan_step")


def log_course(tracker: Tracker, name: str, history: History, prefix: str = "") -> None:
    """Log what came out in a few figures, and the curves of the losses as a picture.

    The figures are ``best_epoch``, ``best_val_loss``, ``n_epochs``, ``nan_steps``,
    ``first_nan_step`` and those that the history has beside its rows. They have no group
    (``group/name``): MLflow draws groups before all else, and these would push the losses off the
    page. At step 0 MLflow draws a bar with its value.

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

    summary = history.summary()
    figures = {key: summary.get(key) for key in _FIGURES}
    figures |= {"best_val_loss": summary.get("val_loss"), **history.figures}
    known = {f"{prefix}{key}": float(v) for key, v in figures.items() if v is not None}
    tracker.log_metrics(known, step=0)
    tracker.log_figure(loss_curves(history.rows, name), f"{prefix}loss_curves.png")
    _log_gradients(tracker, history, prefix)


def _log_gradients(tracker: Tracker, history: History, prefix: str) -> None:
    """Log the norms by module, where they were kept: a table, and a picture a stage."""
    if not history.gradients:
        return
    from cfmvc.evaluation.gradient_figures import gradient_picture, gradient_table

    table = gradient_table(history.gradients).to_csv(index=False)
    tracker.log_text(table, f"{prefix}gradients.csv")
    stages = list(dict.fromkeys(epoch["stage"] for epoch in history.gradients))
    for number, stage in enumerate(stages):  # the flow's run has the joint training's as well
        epochs = [epoch for epoch in history.gradients if epoch["stage"] == stage]
        own = "" if number == 0 else f"{stage.removeprefix('train_')}_"
        tracker.log_figure(gradient_picture(epochs), f"{prefix}{own}gradients.png")


def log_velocity_events(tracker: Tracker, events: Iterable[Mapping[str, Any]]) -> None:
    """Log the non-finite velocities of a generation, each at its step of the integration."""
    for event in events:
        tracker.log_event("velocity", dict(event), int(event["step"]))
