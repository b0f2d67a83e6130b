"""What a result came from, as tags: the code, the data, the split, and DVC's record of outputs."""

import getpass
import re
import subprocess
from pathlib import Path
from typing import Any

from cfmvc.config import read_yaml
from cfmvc.errors import ConfigError
from cfmvc.files import read_json
from cfmvc.tracking.run_link import read_link

SPLIT = Path("data/prepared/split.json")
RUNS = Path("results/runs")
STUDY_TAGS = ("cfmvc.study", "cfmvc.trial")  # of a model whose parameters a study has found
COMMIT_TAG, DIRTY_TAG = "cfmvc.git_commit", "cfmvc.git_dirty"
LOCK_TAG, PARAMS_TAG = "cfmvc.dvc_lock_md5", "cfmvc.params_md5"
DATA_TAG, SPLIT_TAG = "cfmvc.data_md5", "cfmvc.split_sha256"
OUT_PREFIX, RUN_PREFIX = "dvc.out.", "cfmvc.run."
_SOURCES = ("cfmvc", "pipelines", ":(glob)*.yaml", "*.dvc")  # what a stage may read
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def lineage_tags(workspace: Path, stage: str) -> dict[str, str]:
    """Return the tags of a stage's run; what cannot be found out is left out.

    ``cfmvc.git_commit``, ``cfmvc.git_branch``, ``cfmvc.git_dirty`` (whether tracked files, or
    new ones that a stage may read, differ from the commit), ``cfmvc.data_md5`` and
    ``cfmvc.split_sha256`` (for stages after ``prepare``), ``dvc.out.<path>``: the md5 of every
    output that the stage rests on, directly or not, and ``cfmvc.run.<stage>``: the run (its
    ``cfmvc.uid``) of each stage that made them.
    """
    tags = {**_git_tags(workspace), **_user_tag(), "mlflow.source.name": stage}
    tags["mlflow.source.type"] = "LOCAL"
    upstream, makers = _upstream(workspace, stage)
    tags.update({f"{OUT_PREFIX}{path}": md5 for path, md5 in sorted(upstream.items())})
    tags.update(_run_tags(workspace, makers))
    # Before `prepare` has run, the split that lies there is an older run's.
    if str(SPLIT.parent) in {str(Path(path).parent) for path in upstream}:
        tags.update(_split_tags(workspace / SPLIT))
    return tags


def is_lineage(tag: str) -> bool:
    """Return whether a tag says what a result came from; a version carries those of its run."""
    of_git = (COMMIT_TAG, DIRTY_TAG, "cfmvc.git_branch")
    of_files = (LOCK_TAG, PARAMS_TAG, DATA_TAG, SPLIT_TAG)
    return tag in (*of_git, *of_files, *STUDY_TAGS) or tag.startswith((OUT_PREFIX, RUN_PREFIX))


def _git_tags(workspace: Path) -> dict[str, str]:
    commit = git_says(workspace, "rev-parse", "HEAD")
    if commit is None:
        return {}
    branch = git_says(workspace, "rev-parse", "--abbrev-ref", "HEAD")
    return {
        COMMIT_TAG: commit,
        "cfmvc.git_branch": branch or "HEAD",
        DIRTY_TAG: str(_differs(workspace)).lower(),
        "mlflow.source.git.commit": commit,
    }


def _differs(workspace: Path) -> bool:
    """Return whether a stage may have read what the commit has not; also if git does not say."""
    # dvc.lock says what was made, and changes with every stage: it is no input.
    tracked = ["--untracked-files=no", "--", ".", ":(exclude)dvc.lock"]
    # A log, or a file of predictions, is nobody's input.
    new = ["--untracked-files=all", "--", *_SOURCES]
    status = ("status", "--porcelain")
    return any(git_says(workspace, *status, *which) != "" for which in (tracked, new))


def git_says(workspace: Path, *arguments: str) -> str | None:
    """Return what a git command prints in a folder; None if it fails, or there is no git."""
    # --no-optional-locks: `git status` must not disturb a DVC command that works on the index
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _user_tag() -> dict[str, str]:
    try:
        return {"mlflow.user": getpass.getuser()}
    except (OSError, KeyError):  # a container's user without a name
        return {}


def _split_tags(path: Path) -> dict[str, str]:
    try:
        split = read_json(path)
    except (OSError, ValueError):
        return {}
    names = {SPLIT_TAG: "sha256", DATA_TAG: "data_md5"}
    return {tag: str(split[name]) for tag, name in names.items() if name in split}


def _run_tags(workspace: Path, makers: set[str]) -> dict[str, str]:
    tags = {}
    for maker in sorted(makers):
        try:
            tags[f"{RUN_PREFIX}{maker}"] = read_link(workspace / RUNS / f"{maker}.json").uid
        except (OSError, ValueError, TypeError):
            continue  # made without tracking, or by hand
    return tags


def _upstream(workspace: Path, stage: str) -> tuple[dict[str, str], set[str]]:
    """Return path and md5 of the outputs that a stage rests on, as ``dvc.lock`` has them.

    The second part are the stages that made them and keep a link to their run as an output.
    """
    try:
        graph = read_yaml(workspace / "dvc.yaml").get("stages") or {}
        locked = read_yaml(workspace / "dvc.lock").get("stages") or {}
        params = read_yaml(workspace / "params.yaml")
    except ConfigError:
        return {}, set()
    outs = {
        path: name
        for name, entry in graph.items()
        for section in ("outs", "metrics", "plots")
        for path in paths_of(entry.get(section), params)
    }
    md5s = {
        out["path"]: out["md5"]
        for entry in locked.values()
        for out in entry.get("outs", ())
        if "md5" in out
    }
    needed, waiting = dict[str, str](), [stage]
    seen = {stage}
    while waiting:
        for path in paths_of(graph.get(waiting.pop(), {}).get("deps"), params):
            maker = outs.get(path)
            if maker is None:
                continue
            if path in md5s:
                needed[path] = md5s[path]
            if maker not in seen:
                seen.add(maker)
                waiting.append(maker)
    makers = {name for name in seen - {stage} if str(RUNS / f"{name}.json") in md5s}
    return needed, makers


def paths_of(entries: Any, params: dict[str, Any]) -> list[str]:
    """Return the paths of a section of ``dvc.yaml``, with ``${section.key}`` filled in."""
    names = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries or ()]
    return [_REFERENCE.sub(lambda found: _value(found[1], params), str(name)) for name in names]


def _value(name: str, params: dict[str, Any]) -> str:
    value: Any = params
    for part in name.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)
