"""What a run has in MLflow, so that a training that goes on sends nothing twice.

It does again what came after its last checkpoint, to the same bits: a figure that is there already
would be there twice, and one of the machine (a time) with two values.
"""

from collections.abc import Iterable
from typing import Any

Point = tuple[str, float, int, int]  # name, value, milliseconds, step


class Recorded:
    """Parameters and metric points of a run.

    Parameters
    ----------
    client
        MLflow's client.
    run_id
        The run.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        data = client.get_run(run_id).data
        self._params = set(data.params)
        self._points = {
            known
            for name in data.metrics
            for point in client.get_metric_history(run_id, name)
            for known in ((name, point.step), (name, point.step, point.value))
        }

    def new_params(self, params: dict[str, str]) -> dict[str, str]:
        """Return the parameters that the run lacks: a name keeps its first value."""
        new = {name: value for name, value in params.items() if name not in self._params}
        self._params |= set(new)
        return new

    def new_points(self, points: Iterable[Point], counts: set[str]) -> list[Point]:
        """Return the points that the run lacks, and take them as recorded.

        Parameters
        ----------
        points
            What was said.
        counts
            Names of counters, which may grow within one step.
        """
        new = []
        for name, value, ms, step in points:
            known = (name, step, value) if name in counts else (name, step)
            if known not in self._points:
                new.append((name, value, ms, step))
                self._points |= {(name, step), (name, step, value)}
        return new


class NothingRecorded:
    """A run that no earlier process has written to."""

    def new_params(self, params: dict[str, str]) -> dict[str, str]:
        """Return all of them."""
        return params

    def new_points(self, points: Iterable[Point], counts: set[str]) -> list[Point]:
        """Return all of them."""
        return list(points)
