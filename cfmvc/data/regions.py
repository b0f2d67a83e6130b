"""Regions of a tissue: what a rectangle, a circle, a polygon or an annotation holds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cfmvc.data.labels import read_labels
from cfmvc.errors import ConfigError, DataError, listed, suggest

GRAMMAR = (
    "x0,x1,y0,y1 or x0,x1,y0,y1,z0,z1 (a rectangle or box), circle:x,y,r, "
    "polygon:x1,y1;x2,y2;x3,y3;... or obs:COLUMN=VALUE"
)


class Region(Protocol):
    """Some place in a tissue."""

    def holds(self, places: NDArray[np.floating], obs: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which cells are in it, ``(n_cells,)``.

        Parameters
        ----------
        places
            Coordinates, ``(n_cells, 2 or 3)``; circles and polygons are of x and y, whatever z.
        obs
            The cells' annotations, in the same order.

        Raises
        ------
        DataError
            If the cells lack what the region asks about.
        """
        ...


@dataclass(frozen=True)
class Box:
    """All places between two corners, the borders included; of two coordinates, z is free."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def holds(self, places: NDArray[np.floating], obs: pd.DataFrame) -> NDArray[np.bool_]:
        """See :class:`Region`."""
        n_asked = len(self.low)
        if n_asked > places.shape[1]:
            raise DataError(
                f"region: has {n_asked} coordinates, the cells have {places.shape[1]}; "
                "give x0,x1,y0,y1"
            )
        # in the cells' own precision: a border at 0.1 holds the cell at 0.1
        low, high = (np.asarray(ends, dtype=places.dtype) for ends in (self.low, self.high))
        asked = places[:, :n_asked]
        return np.asarray(((asked >= low) & (asked <= high)).all(axis=1), dtype=bool)


@dataclass(frozen=True)
class Circle:
    """All places that are no further from a point than the radius."""

    centre: tuple[float, float]
    radius: float

    def holds(self, places: NDArray[np.floating], obs: pd.DataFrame) -> NDArray[np.bool_]:
        """See :class:`Region`."""
        from_centre = places[:, :2].astype(np.float64) - self.centre
        return np.asarray(np.hypot(*from_centre.T) <= self.radius, dtype=bool)


@dataclass(frozen=True)
class Polygon:
    """What straight lines from corner to corner, and back to the first, enclose.

    Where they cross, what they enclose twice is outside (even-odd rule). A cell exactly on a line
    may be on either side.
    """

    corners: tuple[tuple[float, float], ...]

    def holds(self, places: NDArray[np.floating], obs: pd.DataFrame) -> NDArray[np.bool_]:
        """See :class:`Region`."""
        from matplotlib.path import Path  # of the extra `pipeline`

        outline = Path([*self.corners, self.corners[0]], closed=True)
        return np.asarray(outline.contains_points(places[:, :2].astype(np.float64)), dtype=bool)


@dataclass(frozen=True)
class Annotation:
    """The cells with one value in a column of ``obs``."""

    column: str
    value: str

    def holds(self, places: NDArray[np.floating], obs: pd.DataFrame) -> NDArray[np.bool_]:
        """See :class:`Region`."""
        if self.column not in obs:
            columns = [str(name) for name in obs.columns]
            hint = suggest(self.column, columns)
            raise DataError(f"region: no column '{self.column}'{hint} in obs; {listed(columns)}")
        text = read_labels(obs[self.column]).text
        inside = np.asarray(text == self.value, dtype=bool)
        if not inside.any():
            values = sorted(set(text) - {""})
            raise DataError(
                f"region: no cell has '{self.value}'{suggest(self.value, values)} in "
                f"obs['{self.column}']; values: {listed(values)}"
            )
        return inside


def parse_region(text: str) -> Region:
    """Read a region as it is written on the command line.

    Parameters
    ----------
    text
        ``x0,x1,y0,y1`` or ``x0,x1,y0,y1,z0,z1``; ``circle:x,y,r``;
        ``polygon:x1,y1;x2,y2;x3,y3;...``; ``obs:COLUMN=VALUE``.

    Raises
    ------
    ConfigError
        If it is none of them; the message has the grammar.
    """
    kind, colon, rest = text.partition(":")
    if not colon:
        return _box(text)
    if kind not in _KINDS:
        raise _error(text, f"no kind '{kind}'{suggest(kind, _KINDS)}")
    return _KINDS[kind](text, rest)


def _box(text: str) -> Region:
    ends = _numbers(text, text)
    if len(ends) not in (4, 6):
        raise _error(text, f"has {len(ends)} numbers, not 4 or 6")
    low, high = ends[::2], ends[1::2]
    for axis, start, stop in zip("xyz", low, high, strict=False):
        if start > stop:
            raise _error(text, f"{axis} runs from {start:g} down to {stop:g}")
    return Box(low, high)


def _circle(text: str, rest: str) -> Region:
    numbers = _numbers(text, rest)
    if len(numbers) != 3:
        raise _error(text, f"has {len(numbers)} numbers, not 3")
    x, y, radius = numbers
    if radius <= 0:
        raise _error(text, f"the radius {radius:g} is not above 0")
    return Circle((x, y), radius)


def _polygon(text: str, rest: str) -> Region:
    corners = []
    for corner in rest.split(";"):
        numbers = _numbers(text, corner)
        if len(numbers) != 2:
            raise _error(text, f"the corner '{corner}' has {len(numbers)} numbers, not 2")
        corners.append((numbers[0], numbers[1]))
    if len(set(corners)) < 3:
        raise _error(text, f"has {len(set(corners))} different corners, not 3 or more")
    return Polygon(tuple(corners))


def _annotation(text: str, rest: str) -> Region:
    column, equals, value = rest.partition("=")
    if not column or not equals or not value.strip():
        raise _error(text, "needs a column and a value")
    return Annotation(column, value.strip())


_KINDS: dict[str, Callable[[str, str], Region]] = {
    "circle": _circle,
    "polygon": _polygon,
    "obs": _annotation,
}


def _numbers(text: str, part: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in part.split(","))
    except ValueError as error:
        raise _error(text, f"'{part}' are not numbers with commas between them") from error
    if not np.isfinite(numbers).all():
        raise _error(text, "a number is not finite")
    return numbers


def _error(text: str, fault: str) -> ConfigError:
    return ConfigError(f"region {text}: {fault}; a region is {GRAMMAR}")
