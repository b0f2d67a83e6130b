"""The work behind ``cfmvc registry promote`` and ``rollback``: a decision, and the run of it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cfmvc.config import read_yaml, section_of
from cfmvc.registry.gate import Verdict
from cfmvc.registry.gate_table import verdict_text
from cfmvc.registry.history import expect_may_decide
from cfmvc.registry.judge import GateJudge, GateSections
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
    registry = _to_decide(project)
    version = int(registry.version(called).version)
    sections = GateSections.of(read_yaml(project / "params.yaml"))
    refused_by: Verdict | None = None
    try:
        with _decision("promote", project, version) as tracker:
            judge = GateJudge(registry, project, sections, tracker, _say)
            try:
                promote(registry, version, judge)
            finally:
                if judge.verdict is not None:
                    print(verdict_text(judge.verdict, version, judge.champion))
                    refused_by = None if judge.verdict.is_passed else judge.verdict
    except PromotionRefused as refusal:
        if refused_by is None:
            raise
        raise PromotionRefused(
            f"version {version} does not become champion, for the reasons above; they are kept in "
            "the MLflow run 'promote' and in `cfmvc registry history`"
        ) from refusal
    return f"models:/{registry.name}@champion is version {version} now"


def forced(project: Path, called: str, why: str) -> str:
    """Promote without the gate, and return what to print."""
    registry = _to_decide(project)
    version = int(registry.version(called).version)
    with _decision("promote", project, version) as tracker:
        force(registry, version, why, _evidence(tracker))
    return (
        f"models:/{registry.name}@champion is version {version} now, without the gate; "
        "`cfmvc registry history` says by whom and why"
    )


def rolled_back(project: Path, why: str) -> str:
    """Go back to the previous champion, and return what to print."""
    registry = _to_decide(project)
    with _decision("rollback", project, None) as tracker:
        entry = roll_back(registry, why, _evidence(tracker))
    return f"models:/{registry.name}@champion is version {entry.version} again"


def _to_decide(project: Path) -> Registry:
    """Open the registry; who may not decide is told so before minutes of work."""
    registry = Registry.of_project(project)
    expect_may_decide(registry)
    return registry


def _evidence(tracker: SpoolTracker) -> dict[str, str]:
    return {
        "git_commit": tracker.lineage.get("cfmvc.git_commit", ""),
        "run_uid": tracker.uid,
    }


@contextmanager
def _decision(name: str, project: Path, version: int | None) -> Iterator[SpoolTracker]:
    """Open the run of a decision. One that refuses has not failed: its error comes after it."""
    config = section_of(read_yaml(project / "params.yaml"), "tracking", TrackingConfig)
    tags = {} if version is None else {"cfmvc.version": str(version)}
    refused: PromotionRefused | None = None
    with stage_run(name, project, config, tags) as tracker:
        try:
            yield tracker
            tracker.set_tags({"cfmvc.verdict": "done"})
        except PromotionRefused as refusal:
            tracker.set_tags({"cfmvc.verdict": "refused", "cfmvc.reasons": str(refusal)[:4000]})
            refused = refusal
    if refused is not None:
        raise refused


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
