"""What is kept of earlier runs, and what is said of where it was measured."""

import json
from pathlib import Path
from typing import Any

from benchmarks.engine.results import keep
from benchmarks.engine.rounds import spread
from benchmarks.engine.row import Row

HERE = {"cpu": "a laptop", "gpu": "none", "cores": 2}
THERE = {"cpu": "a server", "gpu": "a large one", "cores": 16}


def part(date: str, *rows: Row) -> dict[str, Any]:
    origin = {"date": date, "commit": "abc", "load_average": 0.1, "n_rounds": 1}
    return {**origin, "rows": [row.as_json() for row in rows]}


def measured(what: str, seconds: float) -> Row:
    return Row(what, spread([seconds]), unit="s")


def kept(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "latest.json").read_text()))


def test_figures_of_another_machine_stay_with_its_name_and_their_date(tmp_path: Path) -> None:
    keep({"gpu": part("May", measured("fast", 1.0))}, THERE, tmp_path)
    missing = part("June", Row("fast", missing="no CUDA device here"))
    keep({"gpu": missing, "cpu": part("June", measured("slow", 9.0))}, HERE, tmp_path)
    found = kept(tmp_path)
    assert found["machine"] == HERE
    assert found["benchmarks"]["gpu"]["date"] == "May"
    assert found["benchmarks"]["gpu"]["machine"] == THERE
    assert "machine" not in found["benchmarks"]["cpu"]
    page = (tmp_path / "README.md").read_text()
    assert "fast (a large one, May) | 1 s" in page
    assert "not measured" not in page
    keep({"cpu": part("July", measured("slow", 8.0))}, HERE, tmp_path)
    assert kept(tmp_path)["benchmarks"]["gpu"]["machine"] == THERE


def test_a_new_figure_replaces_the_old_one(tmp_path: Path) -> None:
    keep({"gpu": part("May", measured("fast", 1.0))}, THERE, tmp_path)
    keep({"gpu": part("June", measured("fast", 2.0))}, HERE, tmp_path)
    found = kept(tmp_path)["benchmarks"]["gpu"]
    assert (found["date"], "machine" in found) == ("June", False)


def test_back_on_the_machine_its_figures_are_at_home_again(tmp_path: Path) -> None:
    keep({"cpu": part("May", measured("slow", 9.0))}, HERE, tmp_path)
    keep({"gpu": part("June", measured("fast", 1.0))}, THERE, tmp_path)
    assert kept(tmp_path)["benchmarks"]["cpu"]["machine"] == HERE
    keep({"start": part("July", measured("first", 1.0))}, HERE, tmp_path)
    found = kept(tmp_path)["benchmarks"]
    assert "machine" not in found["cpu"]
    assert found["gpu"]["machine"] == THERE


def test_what_was_never_measured_says_so(tmp_path: Path) -> None:
    keep({"gpu": part("May", Row("fast", missing="no CUDA device here"))}, HERE, tmp_path)
    assert "not measured: no CUDA device here" in (tmp_path / "README.md").read_text()
