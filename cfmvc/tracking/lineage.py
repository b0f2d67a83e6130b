"""What a result came from, as tags: the code, the data, the split, and DVC's record of outputs."""

import getpass
import re
import subprocess
from pathlib import Path
from typing import Any

from cfmvc.config import read_yaml
from cfmvc.errors import ConfigError
from cfmvc.files import md5_of_file, read_json

_SPLIT = Path("data/prepared/split.json")
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def lineage_tags(workspace: Path, stage: str) -> dict[str, str]:
    """Return the tags of a stage's run; what cannot be found out is left out.

    ``cfmvc.git_commit``, ``cfmvc.git_branch``, ``cfmvc.git_dirty`` (whether tracked or new files
    differ from the commit), ``cfmvc.dvc_lock_md5``, ``cfmvc.data_md5`` and ``cfmvc.split_sha256``
    (for stages after ``prepare``), and ``dvc.out.<path>``: the md5 of every output that the stage
    rests on, directly or not.
    """
    tags = {**_git_tags(workspace), **_user_tag(), "mlflow.source.name": stage}
    tags["mlflow.source.type"] = "LOCAL"
    lock = workspace / "dvc.lock"
    if lock.is_file():
        tags["cfmvc.dvc_lock_md5"] = md5_of_file(lock)
    upstream = _upstream_outs(workspace, stage)
    tags.update({f"dvc.out.{path}": md5 for path, md5 in sorted(upstream.items())})
    # Before `prepare` has run, the split that lies there is an older run's.
    if str(_SPLIT.parent) in {str(Path(path).parent) for path in upstream}:
        tags.update(_split_tags(workspace / _SPLIT))
    return tags


def _git_tags(workspace: Path) -> dict[str, str]:
    commit = _git(workspace, "rev-parse", "HEAD")
    if commit is None:
        return {}
    # dvc.lock says what was made, and changes with every stage: it is no input.
    changes = _git(workspace, "status", "--porcelain", "--", ".", ":(exclude)dvc.lock")
    branch = _git(workspace, "rev-parse", "--abbrev-ref", "HEAD")
    return {
        "cfmvc.git_commit": commit,
        "cfmvc.git_branch": branch or "HEAD",
        "cfmvc.git_dirty": str(changes != "").lower(),
        "mlflow.source.git.commit": commit,
    }


def _git(workspace: Path, *arguments: str) -> str | None:
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
    names = {"cfmvc.split_sha256": "sha256", "cfmvc.data_md5": "data_md5"}
    return {tag: str(split[name]) for tag, name in names.items() if name in split}


def _upstream_outs(workspace: Path, stage: str) -> dict[str, str]:
    """Return path and md5 of the outputs that a stage rests on, as ``dvc.lock`` has them."""
    try:
        graph = read_yaml(workspace / "dvc.yaml").get("stages") or {}
        locked = read_yaml(workspace / "dvc.lock").get("stages") or {}
        params = read_yaml(workspace / "params.yaml")
    except ConfigError:
        return {}
    outs = {
        path: name
        for name, entry in graph.items()
        for section in ("outs", "metrics", "plots")
        for path in _paths(entry.get(section), params)
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
        for path in _paths(graph.get(waiting.pop(), {}).get("deps"), params):
            maker = outs.get(path)
            if maker is None:
                continue
            if path in md5s:
                needed[path] = md5s[path]
            if maker not in seen:
                seen.add(maker)
                waiting.append(maker)
    return needed


def _paths(entries: Any, params: dict[str, Any]) -> list[str]:
    """Return the paths of a section of ``dvc.yaml``, with ``${section.key}`` filled in."""
    names = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries or ()]
    return [_REFERENCE.sub(lambda found: _value(found[1], params), str(name)) for name in names]


def _value(name: str, params: dict[str, Any]) -> str:
    value: Any = params
    for part in name.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)
