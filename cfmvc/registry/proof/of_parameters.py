"""The link of the parameters: the run's, the commit's and those that DVC has written down agree."""

import ast
from typing import Any

from cfmvc.files import md5_of_file
from cfmvc.registry.proof.evidence import Evidence
from cfmvc.registry.proof.link import BrokenLinkError, UncheckedLinkError
from cfmvc.registry.proof.of_run import expect_tagged, md5_tag
from cfmvc.tracking.lineage import COMMIT_TAG
from cfmvc.tracking.origin import PARAMS_FILE


def parameters_link(evidence: Evidence) -> str:
    """``params.yaml`` of the run, of the commit and of ``dvc.lock`` agree, and so do the runs."""
    params, lock = evidence.params, evidence.lock
    expect_tagged(evidence, PARAMS_FILE)
    _expect_committed(evidence)
    n_values = 0
    for stage in lock.stages:
        for section, values in lock.params_of(stage).items():
            told = params.get(section)
            for name, value in (values if isinstance(values, dict) else {}).items():
                n_values += 1
                if not isinstance(told, dict) or name not in told or told[name] != value:
                    raise BrokenLinkError(
                        f"{stage} was made with {section}.{name} = {value}, {PARAMS_FILE} of the "
                        f"run says {(told or {}).get(name)}; `dvc repro` makes it anew"
                    )
    # Gone on with, a run keeps the first value that it was given; a study takes its own from the
    # command line.
    is_free = "cfmvc.resumed" in evidence.tags or evidence.stage == "tune"
    own: dict[str, Any] | None = {} if is_free else None
    _expect_logged(evidence.stage, evidence.run, params, own)
    for stage, uid in evidence.stage_runs.items():
        run = evidence.store.find_run_anywhere(uid)
        if run is not None and stage in lock.stages:
            _expect_logged(stage, run, params, lock.params_of(stage))
    return f"{n_values} values, md5 {md5_tag(evidence, PARAMS_FILE)[:12]}"


def _expect_committed(evidence: Evidence) -> None:
    """Compare with the file of the commit, where that is at hand: else its own link has said so."""
    commit = evidence.tags.get(COMMIT_TAG)
    try:
        folder = None if commit is None else evidence.commit(commit)
    except (BrokenLinkError, UncheckedLinkError):
        return
    file = None if folder is None else folder / PARAMS_FILE
    if file is None or not file.is_file():
        return
    if md5_of_file(file) != md5_of_file(evidence.artifact(PARAMS_FILE)):
        raise BrokenLinkError(
            f"{PARAMS_FILE} of commit {str(commit)[:12]} is not the run's; {evidence.again}"
        )


def _expect_logged(
    stage: str, run: Any, params: dict[str, Any], sections: dict[str, Any] | None
) -> None:
    """Compare a run's parameters, those of some sections only, with ``params.yaml``."""
    for name, text in run.data.params.items():
        section, _, last = name.partition(".")
        if sections is not None and section not in sections:
            continue  # shapes no output (`checkpoint`), so it may have changed since
        value = (params.get(section) or {}).get(last)
        if not _is_same(text, value):
            raise BrokenLinkError(
                f"run {run.info.run_id} of {stage} has {name} = {text}, {PARAMS_FILE} of the run "
                f"says {value}: one of the two was edited; `dvc repro --force --single-item "
                f"{stage}` makes it anew"
            )


def _is_same(text: str, value: Any) -> bool:
    """Return whether a logged text is a value: 2000 in YAML may be logged as 2000.0."""
    if text == str(value):
        return True
    try:
        return bool(ast.literal_eval(text) == value)
    except (ValueError, SyntaxError):
        return False
