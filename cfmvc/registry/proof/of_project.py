"""The links that need the project: the data, what was made of them, and the commit."""

import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from cfmvc.config import read_yaml
from cfmvc.errors import ConfigError
from cfmvc.files import md5_of_file, read_json
from cfmvc.registry.hashes import sha256_of_folder
from cfmvc.registry.proof.dvc_lock import FOLDER_SUFFIX, dvc_md5
from cfmvc.registry.proof.evidence import Evidence
from cfmvc.registry.proof.link import BrokenLinkError, UncheckedLinkError
from cfmvc.registry.proof.of_run import expect_fact
from cfmvc.registry.tags import CODE_TAG
from cfmvc.registry.training_facts import FIGURES, NAN_STEPS_TAG, nan_steps_of
from cfmvc.tracking.lineage import COMMIT_TAG, DATA_TAG, DIRTY_TAG, SPLIT, SPLIT_TAG, paths_of
from cfmvc.tracking.origin import PARAMS_FILE


def data_link(evidence: Evidence) -> str:
    """Prove that raw data and split are what ``dvc.lock`` and the tags say."""
    lock, tags = evidence.lock, evidence.tags
    path = lock.data_path
    if path is None:
        raise UncheckedLinkError("the run rests on no data")
    md5, told = lock.md5_of(path), tags.get(DATA_TAG, "")
    if md5 is None:
        raise BrokenLinkError(f"dvc.lock knows no md5 of {path}; `dvc repro` writes it down")
    if not md5.endswith(FOLDER_SUFFIX) and told != md5:
        raise BrokenLinkError(
            f"{path} is {md5} in dvc.lock, {told or 'nothing'} by the tag {DATA_TAG}; "
            f"{evidence.again}"
        )
    _expect_file(evidence, path, md5)
    split = lock.outs.get(str(SPLIT))
    if split is not None:
        _expect_file(evidence, str(SPLIT), split)
        _expect_split(evidence, split)
    return f"{path}, md5 {md5[:12]}"


def outputs_link(evidence: Evidence) -> str:
    """Prove the same of the files that were made of them on the way to the model.

    Among them are the figures of the training, in which the vetoed updates stand that the gate is
    told of.
    """
    paths = [path for path in evidence.outs if path != evidence.lock.data_path]
    found = {path: _expect_file(evidence, path, evidence.outs[path]) for path in paths}
    figures = [found[str(path)] for path in FIGURES if str(path) in found]
    if len(figures) == len(FIGURES):
        expect_fact(evidence, NAN_STEPS_TAG, nan_steps_of(figures), "outputs")
    return ", ".join(paths)


def commit_link(evidence: Evidence) -> str:
    """Prove that a commit has the graph, and each file of code that a stage was made with."""
    tags = evidence.tags
    commit = tags.get(COMMIT_TAG)
    if commit is None:
        raise BrokenLinkError(
            f"made outside a git repository: nothing says by which code; `git init`, commit, then "
            f"{evidence.again}"
        )
    if tags.get(DIRTY_TAG) != "false":
        raise BrokenLinkError(
            f"made from a changed tree: files differed from commit {commit[:12]}, and how is not "
            f"known; commit what belongs to it, then {evidence.again}"
        )
    folder = evidence.commit(commit)
    _expect_graph(evidence, folder, commit[:12])
    n_files = _expect_deps(evidence, folder, commit[:12])
    _expect_code(evidence, folder, commit[:12])
    return f"{commit[:12]}, clean; {n_files} files of code are those that the stages ran"


def _expect_file(evidence: Evidence, path: str, md5: str) -> Path:
    """Hash a file of the project, or what DVC's cache has of it, and return where it is."""
    file = evidence.project / path
    found = dvc_md5(file) if file.exists() else None
    if found == md5:
        return file
    if evidence.current_lock.md5_of(path) == md5:  # the project is where the version was made
        if found is None:
            raise BrokenLinkError(f"{path} is missing; `dvc pull` gets it")
        raise BrokenLinkError(
            f"{path} was edited: md5 {found}, dvc.lock says {md5}; `dvc checkout --force {path}` "
            "brings back what it was"
        )
    kept = _cached(evidence.project, path, md5)
    if kept is None:
        raise UncheckedLinkError(
            "the project is at another version; `git checkout` the commit and `dvc pull`"
        )
    return kept


def _cached(project: Path, path: str, md5: str) -> Path | None:
    """Return a file in DVC's cache, of a folder its list; None unless all of it is there.

    Raises
    ------
    BrokenLinkError
        If it is not as it should be.
    """
    folder = _cache(project)
    kept = None if folder is None else _in_cache(folder, md5)
    if kept is None:
        return None
    entries = read_json(kept) if md5.endswith(FOLDER_SUFFIX) else []
    parts = [_in_cache(kept.parent.parent, entry["md5"]) for entry in entries]
    if None in parts:
        return None
    of_entries = [(part, entry["md5"]) for part, entry in zip(parts, entries, strict=True)]
    for part, told in [(kept, md5.removesuffix(FOLDER_SUFFIX)), *of_entries]:
        if part is not None and md5_of_file(part) != told:
            raise BrokenLinkError(
                f"{path}: {told} in DVC's cache was edited; remove it there, and `dvc fetch` it"
            )
    return kept


def _in_cache(folder: Path, md5: str) -> Path | None:
    kept = folder / md5[:2] / md5[2:]
    return kept if kept.is_file() else None


@cache
def _cache(project: Path) -> Path | None:
    """Ask DVC where its cache is; a team may share one."""
    beside_python = Path(sys.executable).parent / "dvc"
    command = [str(beside_python) if beside_python.is_file() else "dvc", "cache", "dir"]
    try:
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return project / done.stdout.strip() / "files" / "md5"


def _expect_split(evidence: Evidence, md5: str) -> None:
    file, told = evidence.project / SPLIT, evidence.tags.get(SPLIT_TAG, "")
    # Where the project is at another version, the file there is not the one in question.
    if not file.is_file() or md5_of_file(file) != md5:
        return
    found = str(read_json(file).get("sha256", ""))
    if found != told:
        raise BrokenLinkError(
            f"{SPLIT} has the sha256 {found[:12]}, the tag {SPLIT_TAG} says "
            f"{told[:12] or 'nothing'}; {evidence.again}"
        )


def _expect_graph(evidence: Evidence, folder: Path, commit: str) -> None:
    """Hold ``dvc.yaml`` of the commit against what DVC ran."""
    try:
        graph = read_yaml(folder / "dvc.yaml").get("stages") or {}
        params = read_yaml(folder / PARAMS_FILE)
    except ConfigError as error:
        raise BrokenLinkError(f"commit {commit} is no such pipeline: {error}") from error
    for name, entry in evidence.lock.stages.items():
        told = graph.get(name.partition("@")[0])
        if told is None:
            raise BrokenLinkError(f"dvc.yaml of commit {commit} has no stage {name}; `dvc repro`")
        if {"foreach", "matrix"} & set(told):
            continue  # one entry of the file is several of the lock
        command = entry.get("cmd")
        if isinstance(command, str) and paths_of([told.get("cmd")], params) != [command]:
            raise BrokenLinkError(
                f"{name} was made by `{command}`, dvc.yaml of commit {commit} says "
                f"`{told.get('cmd')}`; `dvc repro` makes it anew"
            )
        made_from = {path for path, _ in evidence.lock.deps[name]}
        if made_from != set(paths_of(told.get("deps"), params)):
            raise BrokenLinkError(
                f"{name} was made from other files than dvc.yaml of commit {commit} names; "
                "`dvc repro` makes it anew"
            )


def _expect_deps(evidence: Evidence, folder: Path, commit: str) -> int:
    """Hash what is neither data nor output, and return how many files that were."""
    lock, hashes = evidence.lock, dict[str, str | None]()
    for stage, deps in lock.deps.items():
        for path, md5 in deps:
            if path in lock.outs:
                continue
            if path not in hashes:
                hashes[path] = _committed_md5(folder, path)
            if hashes[path] is None and path == lock.data_path:
                continue  # the file itself has been looked at
            if hashes[path] != md5:
                raise BrokenLinkError(
                    f"{stage} was made with another {path} than commit {commit} has; "
                    "`dvc repro` makes it anew"
                )
    return sum(_n_files(folder / path) for path, md5 in hashes.items() if md5 is not None)


def _n_files(path: Path) -> int:
    return sum(part.is_file() for part in path.rglob("*")) if path.is_dir() else int(path.is_file())


def _committed_md5(folder: Path, path: str) -> str | None:
    """Return the md5 of a file of the commit, or of the data that a ``.dvc`` file of it names."""
    if (folder / path).exists():
        return dvc_md5(folder / path)
    pointer = folder / f"{path}.dvc"
    outs: Iterable[Any] = read_yaml(pointer).get("outs") or () if pointer.is_file() else ()
    return next((str(out["md5"]) for out in outs if "md5" in out), None)


def _expect_code(evidence: Evidence, folder: Path, commit: str) -> None:
    """Compare the code that the version runs with the commit's, where that has the package."""
    told = evidence.subject.tags.get(CODE_TAG)
    package = folder / "cfmvc"
    if told is None or not package.is_dir():
        return
    found = sha256_of_folder(package, "*.py")
    if found != told:
        raise BrokenLinkError(
            f"the code of the model (sha256 {told[:12]}) is not that of commit {commit} "
            f"({found[:12]}); {evidence.again}"
        )
