"""The work behind ``cfmvc registry promote`` and ``rollback``: a decision, and the run of it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cfmvc.config import parse_section, read_yaml
from cfmvc.errors import ConfigError
from cfmvc.registry.gate_table import verdict_text
from cfmvc.registry.history import Entry
from cfmvc.registry.judge import GateJudge
from cfmvc.registry.promote import PromotionRefused, force, promote, roll_back
from cfmvc.registry.registry import Registry
from cfmvc.tracking import SpoolTracker, TrackingConfig, stage_run


def promoted(project: Path, called: str) -> str:
    """Ask the gate for a version, and return what to print.

    Raises
    ------
    PromotionRefused
        With the reasons in words, after the table is printed.
    """
    registry = Registry.of_project(project)
    version = int(registry.version(called).version)
    with _run(project, version) as tracker:
        judge = GateJudge(registry, project, read_yaml(project / "params.yaml"), tracker, _say)
        refusal = _refusal_of(tracker, lambda: promote(registry, version, judge))
        if judge.verdict is not None:
            print(verdict_text(judge.verdict, version, judge.champion))
            if refusal is not None and not judge.verdict.is_passed:
                refusal = PromotionRefused(
                    f"version {version} does not become champion, for the reasons above; they are "
                    f"kept in the MLflow run 'promote' and in `cfmvc registry history`"
                )
    if refusal is not None:
        raise refusal
    return f"models:/{registry.name}@champion is version {version} now"


def forced(project: Path, called: str, why: str) -> str:
    """Promote without the gate, and return what to print."""
    registry = Registry.of_project(project)
    version = int(registry.version(called).version)
    with _run(project, version) as tracker:
        refusal = _refusal_of(tracker, lambda: force(registry, version, why, _evidence(tracker)))
    if refusal is not None:
        raise refusal
    return (
        f"models:/{registry.name}@champion is version {version} now, without the gate; "
        "`cfmvc registry history` says by whom and why"
    )


def rolled_back(project: Path, why: str) -> str:
    """Go back to the previous champion, and return what to print."""
    registry = Registry.of_project(project)
    entry: list[Entry] = []
    with _run(project, None) as tracker:
        refusal = _refusal_of(
            tracker,
            lambda: entry.append(roll_back(registry, why, _evidence(tracker))),
        )
    if refusal is not None:
        raise refusal
    return f"models:/{registry.name}@champion is version {entry[0].version} again"


def _refusal_of(tracker: SpoolTracker, decide: Callable[[], object]) -> PromotionRefused | None:
    """Decide, and return the refusal if it is one: the run that decided so has not failed."""
    try:
        decide()
    except PromotionRefused as refusal:
        tracker.set_tags({"cfmvc.verdict": "refused", "cfmvc.reasons": str(refusal)[:4000]})
        return refusal
    tracker.set_tags({"cfmvc.verdict": "done"})
    return None


def _evidence(tracker: SpoolTracker) -> dict[str, str]:
    return {
        "git_commit": tracker.lineage.get("cfmvc.git_commit", ""),
        "run_uid": tracker.uid,
    }


@contextmanager
def _run(project: Path, version: int | None) -> Iterator[SpoolTracker]:
    params = read_yaml(project / "params.yaml")
    if "tracking" not in params:
        raise ConfigError(f"{project / 'params.yaml'}: no section 'tracking'")
    config = parse_section(TrackingConfig, params["tracking"], "tracking")
    tags = {} if version is None else {"cfmvc.version": str(version)}
    name = "rollback" if version is None else "promote"
    with stage_run(name, project, config, tags) as tracker:
        yield tracker


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
