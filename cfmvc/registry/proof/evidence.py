"""What a chain is proven from: fetched when a link first needs it, and once."""

import subprocess
import tarfile
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from cfmvc.config import read_yaml
from cfmvc.errors import ConfigError
from cfmvc.registry.config import REGISTER_AGAIN
from cfmvc.registry.proof.dvc_lock import Lock
from cfmvc.registry.proof.link import BrokenLinkError, UncheckedLinkError
from cfmvc.registry.proof.subject import Subject
from cfmvc.registry.tags import MODEL_TAG
from cfmvc.tracking.downloads import downloaded
from cfmvc.tracking.lineage import OUT_PREFIX, RUN_PREFIX, git_says
from cfmvc.tracking.origin import LOCK_FILE, MD5_TAGS, PARAMS_FILE
from cfmvc.tracking.store import UID_TAG, Store, is_lost

_NEEDS_RUN = "it needs the run"
# MLflow puts it beside a model that it downloads.
_META_FILE = "registered_model_meta"


class Evidence:
    """The version, its run, their files, and the project.

    Parameters
    ----------
    subject
        What is to be proven.
    store
        Where it is registered.
    workspace
        The project's folder; it may as well be none.
    scratch
        An empty folder for the files of the commit.
    """

    def __init__(self, subject: Subject, store: Store, workspace: Path, scratch: Path) -> None:
        self.subject = subject
        self.store = store
        self.workspace = workspace
        self._scratch = scratch

    @cached_property
    def run(self) -> Any | None:
        """The run that everything rests on, also a deleted one; None if there is none."""
        if self.subject.run is not None:
            return self.subject.run
        uid = self.subject.tags.get(UID_TAG)
        return None if uid is None else self.store.find_run_anywhere(uid)

    @property
    def tags(self) -> dict[str, str]:
        """What the run says of itself."""
        if self.run is None:
            raise UncheckedLinkError(_NEEDS_RUN)
        return dict(self.run.data.tags)

    @property
    def stage(self) -> str:
        """Name of the stage that the run was of."""
        return self.tags.get("cfmvc.stage", "")

    @property
    def outs(self) -> dict[str, str]:
        """Path and md5 of the outputs that the run rests on."""
        return self._named(OUT_PREFIX)

    @property
    def stage_runs(self) -> dict[str, str]:
        """Of the stages before it, the runs."""
        return self._named(RUN_PREFIX)

    @cached_property
    def logged_model(self) -> Any:
        """MLflow's model whose files the version has."""
        return logged_model(self.subject.tags.get(MODEL_TAG, ""), self.store)

    @cached_property
    def model(self) -> Path:
        """The version's MLflow model, downloaded."""
        return model_files(self.logged_model, self.store)

    @cached_property
    def _artifacts(self) -> dict[str, Path]:
        return {}

    def artifact(self, name: str) -> Path:
        """Return an artifact of the run, downloaded.

        Raises
        ------
        BrokenLinkError
            If the run has none.
        """
        if self.run is None:
            raise UncheckedLinkError(_NEEDS_RUN)
        run_id = self.run.info.run_id
        if name not in self._artifacts:
            if name not in {item.path for item in self.store.client.list_artifacts(run_id)}:
                if self.subject.version is None and MD5_TAGS.get(name) not in self.tags:
                    raise UncheckedLinkError(f"the run keeps no {name}")
                raise BrokenLinkError(
                    f"{name} is not among the artifacts of run {run_id}: it was removed, or the "
                    f"run is of an older cfmvc; {self.again}"
                )
            self._artifacts[name] = downloaded(
                self.store, f"{name} of run {run_id}", run_id=run_id, artifact_path=name
            )
        return self._artifacts[name]

    @property
    def again(self) -> str:
        """The command that makes this evidence anew."""
        if self.subject.version is not None:
            return REGISTER_AGAIN
        return f"`dvc repro --force --single-item {self.stage}` makes it anew"

    @cached_property
    def lock(self) -> Lock:
        """The ``dvc.lock`` that the run rests on, and of it what the run rests on."""
        if self.run is not None and not self.outs:
            if self.subject.version is None:
                raise UncheckedLinkError("the run rests on no output of DVC")
            raise BrokenLinkError(
                "it was registered outside the pipeline: DVC knows of nothing that it rests on; "
                "`dvc repro` makes and registers one that can be proven"
            )
        path = self.artifact(LOCK_FILE)
        try:
            return Lock.read(path).upstream_of(self.outs)
        except ConfigError as error:
            raise BrokenLinkError(f"the run's {LOCK_FILE} cannot be read: {error}") from error

    @cached_property
    def params(self) -> dict[str, Any]:
        """The ``params.yaml`` of the run."""
        try:
            return read_yaml(self.artifact(PARAMS_FILE))
        except ConfigError as error:
            raise BrokenLinkError(f"the run's {PARAMS_FILE} cannot be read: {error}") from error

    @property
    def project(self) -> Path:
        """The project's folder, where there is one."""
        if not (self.workspace / "dvc.yaml").is_file():
            raise UncheckedLinkError("no project here")
        return self.workspace

    @cached_property
    def current_lock(self) -> Lock:
        """The ``dvc.lock`` that lies in the project now; an empty one if it is not usable."""
        try:
            return Lock.read(self.project / LOCK_FILE)
        except ConfigError:
            return Lock({})

    def commit(self, commit: str) -> Path:
        """Return a folder with the project's files as they are in a commit.

        Raises
        ------
        BrokenLinkError
            If the repository lacks the commit.
        UncheckedLinkError
            If there is no repository, or not all of it.
        """
        target = self._scratch / commit
        if target.is_dir():
            return target
        if git_says(self.project, "rev-parse", "--git-dir") is None:
            raise UncheckedLinkError("no git repository here")
        if git_says(self.workspace, "cat-file", "-e", f"{commit}^{{commit}}") is None:
            if git_says(self.workspace, "rev-parse", "--is-shallow-repository") == "true":
                raise UncheckedLinkError(
                    f"this clone is shallow, and lacks commit {commit}; `git fetch --unshallow` "
                    "gets it"
                )
            raise BrokenLinkError(
                f"this repository has no commit {commit}: it was rewritten, or never pushed to "
                "here; `git fetch --all` gets it from where it is"
            )
        # of a project in a folder of a repository: that folder
        command = ["git", "archive", "--format=tar", commit]
        done = subprocess.run(command, cwd=self.workspace, capture_output=True, check=False)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip()
            raise UncheckedLinkError(f"git gives no such folder of commit {commit}: {reason}")
        target.mkdir()
        with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
            # Python before 3.11.4 knows no filters.
            if hasattr(tarfile, "data_filter"):
                archive.extractall(target, filter=_but_links_out_of_it)
            else:
                archive.extractall(target)
        return target

    def _named(self, prefix: str) -> dict[str, str]:
        return {
            name.removeprefix(prefix): value
            for name, value in self.tags.items()
            if name.startswith(prefix)
        }


def logged_model(model_id: str, store: Store) -> Any:
    """Return MLflow's model of an id.

    Raises
    ------
    BrokenLinkError
        If the store does not have it.
    """
    try:
        model = store.client.get_logged_model(model_id)
    except Exception as error:
        if not is_lost(error):
            raise
        raise BrokenLinkError(
            f"the store has no model '{model_id}', which the tag {MODEL_TAG} names: it was "
            f"deleted, or the tag was edited; {REGISTER_AGAIN}"
        ) from error
    return model


def model_files(model: Any, store: Store) -> Path:
    """Download a model as it was registered.

    Raises
    ------
    BrokenLinkError
        If its files are gone.
    """
    address, folder = f"models:/{model.model_id}", None
    if store.client.list_logged_model_artifacts(model.model_id):
        folder = downloaded(store, address, artifact_uri=address)
    if folder is None or not (folder / "MLmodel").is_file():
        raise BrokenLinkError(f"{model.artifact_location}: its files are gone; {REGISTER_AGAIN}")
    (folder / _META_FILE).unlink(missing_ok=True)
    return folder


def _but_links_out_of_it(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Let everything of a commit through but links that lead somewhere else on this machine."""
    try:
        return tarfile.data_filter(member, folder)
    except (tarfile.AbsoluteLinkError, tarfile.LinkOutsideDestinationError):
        return None
