"""The links of a run: it ended well, and says what the version says, of DVC, and of the machine."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from cfmvc.errors import listed
from cfmvc.files import md5_of_file
from cfmvc.registry.config import REGISTER_AGAIN
from cfmvc.registry.proof.dvc_lock import dvc_md5
from cfmvc.registry.proof.evidence import Evidence
from cfmvc.registry.proof.link import BrokenLinkError, UncheckedLinkError
from cfmvc.registry.tags import EVALUATION_FILE
from cfmvc.registry.training_facts import PEAK_MEMORY_TAG, STAGES, peak_memory_of
from cfmvc.tracking.contents import key
from cfmvc.tracking.lineage import OUT_PREFIX, is_lineage
from cfmvc.tracking.origin import (
    ENVIRONMENT_FILE,
    LOCK_FILE,
    MD5_TAGS,
    REQUIREMENTS_FILE,
)
from cfmvc.tracking.store import UID_TAG

_ASK_SYNC = "`cfmvc sync` sends what was left on disk"


def run_link(evidence: Evidence) -> str:
    """Prove that the run is there, has finished, and that its lineage is the version's."""
    run, version = evidence.run, evidence.subject.version
    if run is None:
        uid = evidence.subject.tags.get(UID_TAG)
        raise BrokenLinkError(
            f"no run has the {UID_TAG} {uid}, which the version names: nothing says any more what "
            f"it came from; {REGISTER_AGAIN}"
        )
    run_id, name = run.info.run_id, run.info.run_name
    if run.info.lifecycle_stage != "active":
        raise BrokenLinkError(
            f"run {run_id} ({name}) was deleted; `mlflow runs restore --run-id {run_id}` brings it "
            "back"
        )
    if run.info.status != "FINISHED":
        raise BrokenLinkError(
            f"run {run_id} ({name}) is {run.info.status}, not FINISHED; {_ASK_SYNC}"
        )
    if version is not None:
        _expect_same_lineage(version.tags, run.data.tags)
    return f"{name}, {run_id}"


def dvc_lock_link(evidence: Evidence) -> str:
    """Prove that its ``dvc.lock`` is the one that was tagged, and has the model in it."""
    outs, lock = evidence.outs, evidence.lock
    expect_tagged(evidence, LOCK_FILE)
    for path, md5 in outs.items():
        if lock.outs.get(path) != md5:
            raise BrokenLinkError(
                f"{path} is {md5} by the run's tag, {lock.outs.get(path)} in its {LOCK_FILE}; "
                f"{evidence.again}"
            )
    for stage, deps in lock.deps.items():
        for path, md5 in deps:
            if lock.outs.get(path, md5) != md5:
                raise BrokenLinkError(
                    f"{stage} was made from another {path} than lies there now: {md5} instead of "
                    f"{lock.outs[path]}; `dvc repro` makes it anew"
                )
    if evidence.subject.version is not None:
        bundle = evidence.model / "artifacts" / "bundle"
        _expect_out(dvc_md5(bundle), "the version's model", evidence)
        _expect_out(md5_of_file(evidence.artifact(EVALUATION_FILE)), "its evaluation", evidence)
    return (
        f"{len(lock.stages)} stages, {len(outs)} outputs, md5 {md5_tag(evidence, LOCK_FILE)[:12]}"
    )


def stage_runs_link(evidence: Evidence) -> str:
    """Prove that the runs of earlier stages have finished, and rest on the same outputs.

    They tell what memory the training took, too, which the gate reads from the version's tag.
    """
    if not evidence.stage_runs:
        raise UncheckedLinkError("the run names no runs of earlier stages")
    outs, elsewhere, trainings = evidence.outs, [], dict[str, Any]()
    for stage, uid in evidence.stage_runs.items():
        run = evidence.store.find_run_anywhere(uid)
        if run is None:
            elsewhere.append(stage)
            continue
        run_id = run.info.run_id
        if stage in STAGES:
            trainings[stage] = run
        if run.info.lifecycle_stage != "active":
            raise BrokenLinkError(
                f"run {run_id} of {stage} was deleted; `mlflow runs restore --run-id {run_id}` "
                "brings it back"
            )
        if run.info.status != "FINISHED":
            raise BrokenLinkError(
                f"run {run_id} of {stage} is {run.info.status}, not FINISHED; {_ASK_SYNC}"
            )
        for path, md5 in outs.items():
            other = run.data.tags.get(f"{OUT_PREFIX}{path}", md5)
            if other != md5:
                raise BrokenLinkError(
                    f"run {run_id} of {stage} used {path} of md5 {other}, not {md5}; `dvc repro "
                    f"--force --single-item {stage}` makes it anew"
                )
    if elsewhere:
        raise UncheckedLinkError(f"{listed(elsewhere)}: made with another tracking store")
    if len(trainings) == len(STAGES):
        peak = peak_memory_of(trainings.values())
        expect_fact(evidence, PEAK_MEMORY_TAG, peak, "runs")
    return ", ".join(evidence.stage_runs)


def environment_link(evidence: Evidence) -> str:
    """Prove that its machine is written down, and the model asks for what was installed there."""
    for name in (ENVIRONMENT_FILE, REQUIREMENTS_FILE):
        evidence.artifact(name)
        expect_tagged(evidence, name)
    machine = json.loads(evidence.artifact(ENVIRONMENT_FILE).read_text())
    installed = _pins(evidence.artifact(REQUIREMENTS_FILE))
    if evidence.subject.version is not None:
        for name, version in _pins(evidence.model / "requirements.txt").items():
            if installed.get(name) != version:
                raise BrokenLinkError(
                    f"the model asks for {name} {version}, its run had {installed.get(name)}; "
                    f"{REGISTER_AGAIN}"
                )
    return f"Python {machine['python']}, {machine['platform']}; {_compared(installed)}"


def _expect_same_lineage(told: dict[str, str], of_run: dict[str, str]) -> None:
    told = {key(name): value for name, value in told.items() if is_lineage(name)}
    of_run = {name: value for name, value in of_run.items() if is_lineage(name)}
    for name in sorted(told.keys() | of_run.keys()):
        if told.get(name) != of_run.get(name):
            raise BrokenLinkError(
                f"{name} is {told.get(name)} by the version's tag, {of_run.get(name)} by its "
                f"run's: one of the two was edited; {REGISTER_AGAIN}"
            )


def md5_tag(evidence: Evidence, name: str) -> str:
    """Return the md5 that the run was tagged with for one of its artifacts, or nothing."""
    return evidence.tags.get(MD5_TAGS[name], "")


def expect_tagged(evidence: Evidence, name: str) -> None:
    """Hash an artifact of the run.

    Raises
    ------
    BrokenLinkError
        If it is not the one that was tagged.
    """
    found, told = md5_of_file(evidence.artifact(name)), md5_tag(evidence, name)
    if found != told:
        raise BrokenLinkError(
            f"{name} of the run has the md5 {found[:12]}, its tag {MD5_TAGS[name]} says "
            f"{told[:12] or 'nothing'}: edited afterwards; {evidence.again}"
        )


def expect_fact(evidence: Evidence, tag: str, found: str | None, where: str) -> None:
    """Compare what the gate is told of the training, where the version says it at all.

    Without the tag there is nothing to prove, and the gate does not let it pass.

    Raises
    ------
    BrokenLinkError
        If the tag says something else than was found.
    """
    told = evidence.subject.tags.get(tag)
    if evidence.subject.version is not None and told is not None and told != found:
        raise BrokenLinkError(
            f"the version's tag {tag} says {told}, the {where} of its training say "
            f"{found or 'nothing'}: one of the two was edited; {REGISTER_AGAIN}"
        )


def _expect_out(md5: str, what: str, evidence: Evidence) -> None:
    if md5 not in evidence.outs.values():
        raise BrokenLinkError(
            f"{what} (md5 {md5}) is no output of {LOCK_FILE}: it was not made by the pipeline; "
            "`dvc repro` makes and registers one that was"
        )


def _pins(file: Path) -> dict[str, str]:
    """Return name and version of ``name==version`` lines, without what names a build (``+cpu``)."""
    if not file.is_file():
        raise BrokenLinkError(f"{file.name} is not there; {REGISTER_AGAIN}")
    pins = dict[str, str]()
    for line in file.read_text().splitlines():
        try:
            need = Requirement(line)
        except InvalidRequirement:
            continue
        for pin in need.specifier:
            pins[canonicalize_name(need.name)] = pin.version.partition("+")[0]
    return pins


def _compared(installed: dict[str, str]) -> str:
    """Say how this machine differs, which breaks nothing."""
    other = []
    for name, version in installed.items():
        try:
            here = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            here = "none"
        if here != version:
            other.append(f"{name} {here} instead of {version}")
    if not other:
        return f"the same {len(installed)} packages as here"
    more = f" and {len(other) - 5} more" if len(other) > 5 else ""
    return f"here other packages: {', '.join(other[:5])}{more}"
