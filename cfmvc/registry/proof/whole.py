"""Whether what is registered already has the files that it was registered with."""

from pathlib import Path
from typing import Any

from cfmvc.registry.hashes import sha256_of_folder
from cfmvc.registry.proof.evidence import Evidence, logged_model, model_files
from cfmvc.registry.proof.link import BrokenLinkError
from cfmvc.registry.proof.of_version import files_link, source_link, version_link, weights_link
from cfmvc.registry.proof.subject import Subject
from cfmvc.registry.tags import FILES_TAG
from cfmvc.tracking.store import Store


def is_whole_version(version: Any, store: Store) -> bool:
    """Return whether a version's files are in the store, unedited.

    What Python has compiled of them since is not one of them: it can be deleted at any time.
    """
    subject = Subject(f"models:/{version.name}/{version.version}", version=version)
    evidence = Evidence(subject, store, store.home, Path())  # nothing of the project is asked for
    try:
        for check in (version_link, weights_link, source_link, files_link):
            check(evidence)
    except BrokenLinkError:
        return False
    return True


def is_whole_model(model: Any, store: Store) -> bool:
    """Return whether a logged model's files are."""
    try:
        folder = model_files(logged_model(model.model_id, store), store)
    except BrokenLinkError:
        return False
    return sha256_of_folder(folder) == model.tags.get(FILES_TAG)
