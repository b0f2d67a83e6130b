"""The work behind ``cfmvc replay-nan``."""

from pathlib import Path
from typing import Any

from cfmvc.errors import ConfigError
from cfmvc.training.black_box import Findings, replay_black_box


def replay(what: str, project: Path) -> dict[str, Any]:
    """Replay a black box, and compare what came out with what was recorded."""
    report, findings = replay_black_box(_folder(what, project))
    recorded = report["findings"]
    is_reproduced = (findings.loss_parts, findings.gradient_hash) == (
        recorded["loss_parts"],
        recorded["gradient_hash"],
    )
    return {
        "stage": report["event"]["stage"],
        "step": report["event"]["step"],
        "place": report["event"]["place"],
        "is_reproduced": is_reproduced,
        **findings.as_json(),
        "text": _told(report, findings, is_reproduced),
    }


def _folder(what: str, project: Path) -> Path:
    if Path(what).exists():
        return Path(what)
    if "/" in what:
        raise ConfigError(f"{what}: no such folder")
    from cfmvc.tracking.black_boxes import fetch_black_box

    return fetch_black_box(what, project)


def _told(report: dict[str, Any], findings: Findings, is_reproduced: bool) -> str:
    event, machine = report["event"], report["machine"]
    bad = [name for name, norm in findings.gradient_norms.items() if norm is None]
    lines = [
        f"{event['stage']}: step {event['step']} (epoch {event['epoch'] + 1}), "
        f"first non-finite: {event['place']}",
        f"first module with a non-finite output: {findings.module or 'none'}",
        f"gradients that are not finite: {', '.join(bad) or 'none'}",
        f"cells (rows of the training cells): {', '.join(map(str, event['cells']))}",
        *(f"cause: {cause}" for cause in findings.causes or ["none found in the likelihood"]),
    ]
    if is_reproduced:
        return "\n".join([*lines, "reproduced bit for bit"])
    return "\n".join(
        [
            *lines,
            "NOT reproduced bit for bit: other numbers came out here; recorded with torch "
            f"{machine['torch']}, {machine['cpu']}, {machine['platform']}",
        ]
    )
