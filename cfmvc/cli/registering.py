"""What the registry's commands print: versions, one of them, two side by side, the history."""

import io
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from cfmvc.evaluation.metrics import METRICS, heading
from cfmvc.registry.entry import Entry
from cfmvc.registry.history import History, read_history
from cfmvc.registry.proof.link import Chain
from cfmvc.registry.registry import Registry
from cfmvc.registry.tags import BUNDLE_TAG

_SHOWN = ("pearson_delta", "mse_top50", "energy_distance")
_METRIC = "metric."


def rows_of_versions(registry: Registry) -> list[dict[str, Any]]:
    """Return one row a version, the newest first."""
    called: dict[int, list[str]] = {}
    for alias, version in sorted(registry.aliases().items()):
        called.setdefault(version, []).append(alias)
    return [
        {
            "version": int(version.version),
            "aliases": called.get(int(version.version), []),
            "registered": _time(version.creation_timestamp),
            "git_commit": version.tags.get("cfmvc.git_commit"),
            "data_md5": version.tags.get("cfmvc.data_md5"),
            "metrics": _figures(version.tags),
        }
        for version in registry.versions()
    ]


def versions_table(rows: list[dict[str, Any]]) -> str:
    """Return the versions for a terminal."""
    if not rows:
        return "no version yet; `dvc repro` registers one"
    table = _table("version", "aliases", "registered", "commit", "data", *map(heading, _SHOWN))
    for row in rows:
        figures = [_number(row["metrics"].get(metric)) for metric in _SHOWN]
        table.add_row(
            str(row["version"]),
            ", ".join(row["aliases"]),
            row["registered"],
            (row["git_commit"] or "?")[:8],
            (row["data_md5"] or "?")[:8],
            *figures,
        )
    return _printed(table)


def details(registry: Registry, called: str) -> dict[str, Any]:
    """Return all that is known of a version."""
    version = registry.version(called)
    number, history = int(version.version), read_history(registry)
    itself = {number: version.tags.get(BUNDLE_TAG, "")}
    tags = {k: v for k, v in sorted(version.tags.items()) if not k.startswith(_METRIC)}
    return {
        "version": number,
        "aliases": sorted(alias for alias, v in registry.aliases().items() if v == number),
        "registered": _time(version.creation_timestamp),
        "run_id": version.run_id,
        "metrics": _figures(version.tags),
        "tags": tags,
        "history": [_row(history, e) for e in reversed(history.entries) if e.is_among(itself)],
    }


def details_text(found: dict[str, Any]) -> str:
    """Return a version's details for a terminal."""
    lines = [
        f"version     {found['version']}",
        f"aliases     {', '.join(found['aliases']) or 'none'}",
        f"registered  {found['registered']}",
        f"run         {found['run_id']}",
        "",
        *(f"{name:40}{value:.4g}" for name, value in found["metrics"].items()),
        "",
        *(f"{name:40}{value}" for name, value in found["tags"].items()),
    ]
    if found["history"]:
        lines += ["", history_table(found["history"])]
    return "\n".join(lines)


def compared(registry: Registry, called: str, other: str) -> dict[str, Any]:
    """Return the figures of two versions, as they were registered."""
    versions = [registry.version(name) for name in (called, other)]
    figures = [_figures(version.tags) for version in versions]
    data = [version.tags.get("cfmvc.split_sha256") for version in versions]
    return {
        "versions": [int(version.version) for version in versions],
        "same_cells": data[0] is not None and data[0] == data[1],
        "metrics": {
            metric: [figures[0].get(metric), figures[1].get(metric)]
            for metric in METRICS
            if metric in figures[0] or metric in figures[1]
        },
    }


def compared_text(found: dict[str, Any]) -> str:
    """Return two versions side by side for a terminal."""
    first, second = (f"version {number}" for number in found["versions"])
    table = _table("metric", first, second, "better")
    for metric, values in found["metrics"].items():
        table.add_row(heading(metric), *map(_number, values), _better(metric, values, found))
    note = (
        "measured on the same split"
        if found["same_cells"]
        else "NOT measured on the same split: `cfmvc registry promote` measures both on one"
    )
    return f"{_printed(table)}\n{note}"


def rows_of_history(registry: Registry) -> list[dict[str, Any]]:
    """Return the decisions, the last one first."""
    history = read_history(registry)
    return [_row(history, entry) for entry in reversed(history.entries)]


def _row(history: History, entry: Entry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "when": entry.when,
        "who": entry.who,
        "decision": entry.kind,
        "from": entry.champion,
        "version": entry.version,
        "had_effect": history.had_effect(entry),
        "why": entry.why,
        "evidence": entry.evidence,
    }


def history_table(rows: list[dict[str, Any]]) -> str:
    """Return the decisions for a terminal, each with its reasons below."""
    if not rows:
        return "no decision yet; `cfmvc registry promote` makes one"
    lines = []
    for row in rows:
        champion = "no champion" if row["from"] is None else f"champion {row['from']}"
        late = "" if row["had_effect"] or row["decision"] == "refused" else " (came too late)"
        lines.append(
            f"{row['number']:>4}  {row['when']}  {row['decision']}{late}: version "
            f"{row['version']}, with {champion}; by {row['who']}"
        )
        evidence = ", ".join(
            f"{name.replace('_', ' ')} {value[:12] if ' ' not in value else value}"
            for name, value in row["evidence"].items()
            if value
        )
        lines += [f"      {text}" for text in (row["why"], evidence) if text]
    return "\n".join(lines)


def chain_text(chain: Chain) -> str:
    """Return one line a link, and whether the chain holds, for a terminal."""
    marks = {"ok": "ok", "broken": "BROKEN", "not checked": "-"}
    width = max(len(link.name) for link in chain.links)
    lines = [f"{marks[link.state]:6}  {link.name:{width}}  {link.detail}" for link in chain.links]
    return "\n".join([*lines, "", f"{chain.what}: {chain.verdict}"])


def _better(metric: str, values: list[float | None], found: dict[str, Any]) -> str:
    if None in values:
        return ""
    losses = [METRICS[metric].loss(float(value or 0.0)) for value in values]
    if losses[0] == losses[1]:
        return "equal"
    return f"version {found['versions'][0 if losses[0] < losses[1] else 1]}"


def _figures(tags: dict[str, str]) -> dict[str, float]:
    return {
        name.removeprefix(_METRIC): float(value)
        for name, value in sorted(tags.items())
        if name.startswith(_METRIC)
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for title in titles:
        table.add_column(title)
    return table


def _printed(table: Table) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120, no_color=True).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()).strip("\n")
