"""The links that only a version has: it is registered, and its files are what was registered."""

import math
from typing import Any

from cfmvc.files import read_json
from cfmvc.registry.config import REGISTER_AGAIN
from cfmvc.registry.hashes import sha256_of_folder, sha256_of_values
from cfmvc.registry.proof.compiled import expect_compiled_of_source
from cfmvc.registry.proof.evidence import Evidence
from cfmvc.registry.proof.link import BrokenLinkError
from cfmvc.registry.tags import (
    BUNDLE_TAG,
    CODE_TAG,
    EVALUATION_FILE,
    EVALUATION_TAG,
    FIGURE_PREFIX,
    FILES_TAG,
    MODEL_TAG,
    model_figures,
)

_REGISTER_AGAIN = f"do not use it; {REGISTER_AGAIN}"


def version_link(evidence: Evidence) -> str:
    """Prove that the version is ready, names what it is, and has files in the store."""
    version: Any = evidence.subject.version
    if str(version.status) != "READY":
        raise BrokenLinkError(f"{version.status} instead of READY; {_REGISTER_AGAIN}")
    tags = version.tags
    missing = [n for n in (BUNDLE_TAG, CODE_TAG, FILES_TAG, EVALUATION_TAG) if n not in tags]
    if missing:
        raise BrokenLinkError(
            f"it has no tag {missing[0]}: it was removed, or the version was registered by "
            f"something else, or by an older cfmvc; {REGISTER_AGAIN}"
        )
    model_id = evidence.logged_model.model_id
    if version.source != f"models:/{model_id}":
        raise BrokenLinkError(
            f"its files are those of {version.source}, its tag {MODEL_TAG} says {model_id}; "
            f"{_REGISTER_AGAIN}"
        )
    n_files = sum(part.is_file() for part in evidence.model.rglob("*"))
    aliases = sorted(version.aliases)
    return f"alias {', '.join(aliases) or '(none)'}; {n_files} files"


def weights_link(evidence: Evidence) -> str:
    """Prove that the bundle has the hash that was registered."""
    bundle = evidence.model / "artifacts" / "bundle"
    return _hashed("the model's weights and tables", sha256_of_folder(bundle), evidence, BUNDLE_TAG)


def code_link(evidence: Evidence) -> str:
    """Prove it of the code that is served, and that what Python compiled of it is the same."""
    said = source_link(evidence)
    where = str(evidence.logged_model.artifact_location).removeprefix("file://")
    expect_compiled_of_source(evidence.model, where)
    return said


def source_link(evidence: Evidence) -> str:
    """Prove that the sources of the code have the hash that was registered."""
    code = evidence.model / "code" / "cfmvc"
    return _hashed("the code that it runs", sha256_of_folder(code, "*.py"), evidence, CODE_TAG)


def files_link(evidence: Evidence) -> str:
    """Prove it of all files: what MLflow executes, the signature, the requirements."""
    return _hashed("the files around them", sha256_of_folder(evidence.model), evidence, FILES_TAG)


def evaluation_link(evidence: Evidence) -> str:
    """Prove that the figures of its tags and of the logged model are those of its evaluation."""
    file = evidence.artifact(EVALUATION_FILE)
    try:
        evaluation = read_json(file)
    except ValueError as error:
        raise BrokenLinkError(
            f"{EVALUATION_FILE} of the run is not JSON: {error}; {evidence.again}"
        ) from error
    tags = evidence.subject.tags
    found, of_tag = sha256_of_values(evaluation), tags.get(EVALUATION_TAG, "")
    if found != of_tag:
        raise BrokenLinkError(
            f"{EVALUATION_FILE} of the run has the sha256 {found[:12]}, the version's tag says "
            f"{of_tag[:12]}: one of the two was edited; {_REGISTER_AGAIN}"
        )
    figures = model_figures(evaluation)
    told = {
        name.removeprefix(FIGURE_PREFIX): value
        for name, value in tags.items()
        if name.startswith(FIGURE_PREFIX)
    }
    _expect_same(f"tags {FIGURE_PREFIX}* of the version", told, figures)
    metrics = {metric.key: metric.value for metric in evidence.logged_model.metrics or ()}
    _expect_same("metrics of the logged model", metrics, figures)
    return f"{len(figures)} figures, sha256 {found[:12]}"


def _hashed(what: str, found: str, evidence: Evidence, tag: str) -> str:
    told = evidence.subject.tags.get(tag, "")
    if found != told:
        raise BrokenLinkError(
            f"{what}: sha256 {found[:12]} in the store, {told[:12]} in the tag {tag}: edited "
            f"after it was registered; {_REGISTER_AGAIN}"
        )
    return f"sha256 {found[:12]}"


def _expect_same(where: str, told: dict[str, Any], figures: dict[str, float]) -> None:
    for name in sorted(told.keys() | figures.keys()):
        if name not in told:
            raise BrokenLinkError(f"{where}: no {name}; {_REGISTER_AGAIN}")
        if name not in figures or not _is_close(told[name], figures[name]):
            raise BrokenLinkError(
                f"{where}: {name} is {told[name]}, its evaluation says "
                f"{figures.get(name, 'nothing of it')}; {_REGISTER_AGAIN}"
            )


def _is_close(told: Any, figure: float) -> bool:
    try:
        return math.isclose(float(told), figure, rel_tol=1e-9)
    except ValueError:
        return False
