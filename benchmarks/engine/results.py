"""The results as a file for programs, a page for people, and a table for the terminal."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.engine.row import Row

FOLDER = Path(__file__).resolve().parent.parent / "results"
_HEAD = ("what", "ours", "other", "ratio", "bar", "met")


def show(rows: list[Row], console: Console) -> None:
    """Print the table, what stands behind each row, and profiles where a bar is missed."""
    table = Table(*_HEAD, show_lines=True)
    for row in rows:
        table.add_row(*cells_of(row))
    console.print(table)
    for row in rows:
        console.print(f"\n{row.what}", style="bold", highlight=False)
        for note in remarks(row):
            console.print(f"  {note}", markup=False, highlight=False, soft_wrap=True)
        if row.profile:
            console.print("  bar missed; our side:", highlight=False)
            console.print(row.profile, markup=False, highlight=False, soft_wrap=True)


def cells_of(row: Row) -> tuple[str, ...]:
    """Return a row's cells as text."""
    if row.missing:
        return row.what, f"not measured: {row.missing}", "", "", _bar(row), ""
    unit = f" {row.unit}"
    other = "" if row.other is None else f"{row.other.text(unit)}: {row.other_name}"
    return (
        row.what,
        "" if row.ours is None else row.ours.text(unit),
        other,
        "" if row.ratio is None else row.ratio.text("x"),
        _bar(row),
        {True: "yes", False: "NO", None: ""}[row.is_met],
    )


def remarks(row: Row) -> list[str]:
    """Return a row's notes, what must hold first."""
    return [f"{name}: {'yes' if held else 'NO'}" for name, held in row.holds.items()] + row.notes


def keep(measured: dict[str, dict[str, Any]], machine: dict[str, Any], folder: Path) -> None:
    """Write ``latest.json`` and ``README.md``.

    Parameters
    ----------
    measured
        By name of the benchmark: ``date``, ``commit``, ``load_average``, ``rows`` (as JSON). Those
        not measured now stay from before, with their date and, where it is another one, their
        ``machine``.
    machine
        From :func:`benchmarks.engine.machine.machine`.
    folder
        Where both files go.
    """
    folder.mkdir(exist_ok=True)
    file = folder / "latest.json"
    before = json.loads(file.read_text()) if file.is_file() else {"machine": {}, "benchmarks": {}}
    parts = {}
    for name, part in before["benchmarks"].items():
        origin = part.pop("machine", before["machine"])
        parts[name] = part if origin == machine else {**part, "machine": origin}
    for name, part in measured.items():
        is_empty = all(row["missing"] for row in part["rows"])
        parts[name] = parts[name] if is_empty and name in parts else part
    result = {"machine": machine, "benchmarks": parts}
    file.write_text(json.dumps(result, indent=1) + "\n")
    (folder / "README.md").write_text(page(result))


def page(result: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Last results of `make bench`",
        "",
        "Written by `make bench`; do not edit. Median of the rounds (smallest - largest). Both "
        "sides are timed in turn in one process; a ratio is taken within each round.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name.replace('_', ' ')} | {_plain(v)} |" for name, v in result["machine"].items()),
        "",
        f"| {' | '.join(_HEAD)} |",
        "|---" * len(_HEAD) + "|",
    ]
    details = []
    for name, part in result["benchmarks"].items():
        details += ["", f"## {name}", "", _origin(part)]
        for row in map(Row.from_json, part["rows"]):
            what, *cells = cells_of(row)
            lines.append(f"| {' | '.join([what + _elsewhere(part), *cells])} |")
            details += ["", f"**{row.what}**", "", *(f"* {note}" for note in remarks(row))]
            if row.profile:
                details += ["", "Bar missed; our side:", "", "```", row.profile, "```"]
    return "\n".join([*lines, *details]) + "\n"


def _origin(part: dict[str, Any]) -> str:
    told = (
        f"{part['date']}, commit {part['commit']}, {part['n_rounds']} rounds, "
        f"load average before: {part['load_average']}"
    )
    machine = part.get("machine", {})
    facts = [f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in machine.items()]
    return f"{told}. On another machine: {'; '.join(facts)}" if facts else told


def _elsewhere(part: dict[str, Any]) -> str:
    """Return where and when, of figures that the machine above has not given."""
    if "machine" not in part:
        return ""
    machine = part["machine"]
    name = machine["cpu"] if machine["gpu"] == "none" else machine["gpu"]
    return f" ({name}, {part['date']})"


def _bar(row: Row) -> str:
    return "" if row.bar is None else row.bar.text()


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return str(value)
