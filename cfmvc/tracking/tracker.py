"""Where a stage's figures go; those who log know this protocol and nothing behind it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Takes what a run has to say. No method waits for a network or a database."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters; a name keeps its first value."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record figures at a step."""

    def log_event(self, kind: str, details: Mapping[str, Any], step: int) -> None:
        """Record that something happened.

        The metric ``<kind>_events`` counts the events so far at ``step``; the details are one line
        of the artifact ``events/<kind>.jsonl``.
        """

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Record a copy of a file or folder as it is now, under ``folder``."""

    def log_figure(self, figure: Any, name: str) -> None:
        """Record a matplotlib figure as PNG; ``name`` may contain folders."""

    def log_text(self, text: str, name: str) -> None:
        """Record a text as an artifact; ``name`` may contain folders."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags; the last value of a name stands."""


class NullTracker:
    """Records nothing."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Do nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def log_event(self, kind: str, details: Mapping[str, Any], step: int) -> None:
        """Do nothing."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Do nothing."""

    def log_figure(self, figure: Any, name: str) -> None:
        """Do nothing."""

    def log_text(self, text: str, name: str) -> None:
        """Do nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Do nothing."""
