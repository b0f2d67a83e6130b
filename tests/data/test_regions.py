"""Regions, held against a search that goes through cell by cell."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cfmvc.data.regions import parse_region
from cfmvc.errors import ConfigError, DataError

PLACES = np.random.default_rng(0).uniform(-10, 10, (200, 3)).astype(np.float32)
NUMBER = st.floats(-10, 10).map(lambda number: round(number, 3))


def held(text: str, places: np.ndarray = PLACES[:, :2], obs: pd.DataFrame | None = None) -> list:
    nothing = pd.DataFrame(index=range(len(places)))
    return parse_region(text).holds(places, nothing if obs is None else obs).tolist()


def is_enclosed(x: float, y: float, corners: list[tuple[float, float]]) -> bool:
    """Count the sides that a ray to the right crosses."""
    n_crossed = 0
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 > y) != (y1 > y):
            n_crossed += x < x0 + (y - y0) / (y1 - y0) * (x1 - x0)
    return n_crossed % 2 == 1


def distance_to_sides(x: float, y: float, corners: list[tuple[float, float]]) -> float:
    nearest = math.inf
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        share = 0.0 if length == 0 else ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length
        share = min(max(share, 0.0), 1.0)
        nearest = min(nearest, math.hypot(x - x0 - share * (x1 - x0), y - y0 - share * (y1 - y0)))
    return nearest


@given(st.lists(NUMBER, min_size=6, max_size=6), st.booleans())
def test_a_box_holds_what_lies_between_its_sides(ends: list[float], has_depth: bool) -> None:
    sides = [sorted(ends[axis : axis + 2]) for axis in (0, 2, 4)][: 2 + has_depth]
    text = ",".join(str(end) for side in sides for end in side)
    expected = [
        all(a <= value <= b for (a, b), value in zip(sides, place, strict=False))
        for place in PLACES.tolist()
    ]
    assert held(text, PLACES) == expected


@given(NUMBER, NUMBER, st.floats(0.1, 12).map(lambda number: round(number, 3)))
def test_a_circle_holds_what_is_near_its_centre(x: float, y: float, radius: float) -> None:
    expected = [math.dist((x, y), place) <= radius for place in PLACES[:, :2].tolist()]
    assert held(f"circle:{x},{y},{radius}") == expected


@given(st.lists(st.tuples(NUMBER, NUMBER), min_size=3, max_size=9, unique=True))
def test_a_polygon_holds_what_it_encloses(corners: list[tuple[float, float]]) -> None:
    text = "polygon:" + ";".join(f"{x},{y}" for x, y in corners)
    is_inside = held(text)
    clear = [
        (inside, x, y)
        for inside, (x, y) in zip(is_inside, PLACES[:, :2].tolist(), strict=True)
        if distance_to_sides(x, y, corners) > 1e-3  # on a line a cell may be on either side
    ]
    assume(clear)
    for inside, x, y in clear:
        assert inside == is_enclosed(x, y, corners)


def test_borders_are_inside_in_the_precision_of_the_cells() -> None:
    places = np.asarray([[0.1, 0.7], [0.3, 0.7]], dtype=np.float32)
    assert held("0.1,0.3,0.7,0.7", places) == [True, True]
    assert held("circle:0,0,5", np.asarray([[3.0, 4.0]])) == [True]


def test_circles_and_polygons_of_three_coordinates_are_of_x_and_y() -> None:
    for text in ("circle:1,2,4", "polygon:-5,-5;5,-5;0,7", "-5,5,-5,5"):
        assert held(text, PLACES) == held(text, PLACES[:, :2])


def test_a_polygon_may_be_closed_by_hand_and_wound_either_way() -> None:
    corners = ["-5,-5", "5,-5", "6,6", "-3,4"]
    one = held("polygon:" + ";".join(corners))
    assert 0 < sum(one) < len(one)
    assert held("polygon:" + ";".join(corners[::-1])) == one
    assert held("polygon:" + ";".join([*corners, corners[0]])) == one


def test_an_annotated_region_is_a_value_of_a_column() -> None:
    obs = pd.DataFrame({"niche": pd.Categorical(["core", "rim", "core"]), "spot": [1.0, 2.0, 1.0]})
    places = PLACES[:3]
    assert held("obs:niche=core", places, obs) == [True, False, True]
    assert held("obs:spot=2", places, obs) == [False, True, False]
    obs["is=odd"] = [True, False, False]
    with pytest.raises(DataError, match=r"no column 'nich' \(did you mean 'niche'\?\) in obs"):
        held("obs:nich=core", places, obs)
    with pytest.raises(DataError, match=r"no cell has 'cor' \(did you mean 'core'\?\) in obs"):
        held("obs:niche=cor", places, obs)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "'' are not numbers"),
        ("1,2,3", "has 3 numbers, not 4 or 6"),
        ("1,2,3,x", "'1,2,3,x' are not numbers"),
        ("2,1,0,1", "x runs from 2 down to 1"),
        ("0,1,0,1,3,2", "z runs from 3 down to 2"),
        ("0,1,0,inf", "a number is not finite"),
        ("circle:1,2", "has 2 numbers, not 3"),
        ("circle:1,2,0", "the radius 0 is not above 0"),
        ("circel:1,2,3", r"no kind 'circel' \(did you mean 'circle'\?\)"),
        ("polygon:0,0;1,1", "has 2 different corners, not 3 or more"),
        ("polygon:0,0;1,1;0,0", "has 2 different corners, not 3 or more"),
        ("polygon:0,0;1,1;2", "the corner '2' has 1 numbers, not 2"),
        ("obs:niche", "needs a column and a value"),
        ("obs:=core", "needs a column and a value"),
        ("obs:niche= ", "needs a column and a value"),
    ],
)
def test_what_is_no_region_is_told_why_and_how(text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=rf"{fault}.*; a region is x0,x1,y0,y1 or"):
        parse_region(text)


def test_a_box_of_three_coordinates_needs_three() -> None:
    with pytest.raises(DataError, match="has 3 coordinates, the cells have 2"):
        held("0,1,0,1,0,1")
