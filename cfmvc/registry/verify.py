"""Proves what a registered model came from: link by link, from the version to the environment."""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from cfmvc.errors import CfmvcError, TrackingError
from cfmvc.registry.proof.evidence import Evidence
from cfmvc.registry.proof.link import Chain, Link
from cfmvc.registry.proof.of_parameters import parameters_link
from cfmvc.registry.proof.of_project import commit_link, data_link, outputs_link
from cfmvc.registry.proof.of_run import (
    dvc_lock_link,
    environment_link,
    run_link,
    stage_runs_link,
)
from cfmvc.registry.proof.of_version import (
    code_link,
    evaluation_link,
    files_link,
    version_link,
    weights_link,
)
from cfmvc.registry.proof.subject import find_subject
from cfmvc.tracking.downloads import existing_store
from cfmvc.tracking.store import Store, first_line, patience

Check = Callable[[Evidence], str]

# In the order of the chain: each rests on those above it.
OF_A_VERSION: dict[str, Check] = {
    "version": version_link,
    "weights": weights_link,
    "code": code_link,
    "model files": files_link,
    "run": run_link,
    "evaluation": evaluation_link,
}
OF_A_RUN: dict[str, Check] = {
    "run": run_link,
    "dvc.lock": dvc_lock_link,
    "stage runs": stage_runs_link,
    "data": data_link,
    "outputs": outputs_link,
    "git commit": commit_link,
    "parameters": parameters_link,
    "environment": environment_link,
}


def verify(
    what: str, workspace: Path, store: Store | None = None, name: str | None = None
) -> Chain:
    """Prove the chain from a version, or from a run, to what it came from.

    Nothing is written, and no link is taken on trust that can be looked at: files are hashed where
    they are. All links are looked at, also behind a broken one.

    Parameters
    ----------
    what
        A version's number, ``models:/NAME/VERSION``, an alias, or a run's id.
    workspace
        The project's folder. Anywhere else the links that need it are not checked.
    store
        The registry, if it is connected already.
    name
        Name of the model, if it is not ``register.name`` of ``params.yaml``.

    Raises
    ------
    ConfigError
        If there is no such version or run.
    TrackingError
        If the registry cannot be reached.
    """
    store = store or existing_store("the registry", workspace)
    try:
        with patience(), tempfile.TemporaryDirectory(prefix="cfmvc-verify-") as scratch:
            subject = find_subject(what, store, workspace, name)
            evidence = Evidence(subject, store, workspace, Path(scratch))
            checks = OF_A_RUN if subject.version is None else {**OF_A_VERSION, **OF_A_RUN}
            return Chain(subject.title, _links(checks, evidence))
    except CfmvcError:
        raise
    except Exception as error:  # whatever MLflow and its drivers raise
        raise TrackingError(f"{what}: {first_line(error)}") from error


def _links(checks: Mapping[str, Check], evidence: Evidence) -> list[Link]:
    """Look at each link; one that fails for the cause of an earlier one is not broken itself."""
    links, causes = list[Link](), dict[str, str]()
    for name, check in checks.items():
        link = Link.of(name, partial(check, evidence))
        if link.state == "broken":
            cause = causes.setdefault(link.detail, name)
            if cause != name:
                link = Link(name, "not checked", f"it needs what is broken at {cause}")
        links.append(link)
    return links
