"""From a stage's output back to its run, also where DVC restored the output from its cache."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cfmvc.files import read_json


@dataclass(frozen=True)
class RunLink:
    """Which run made an output.

    Parameters
    ----------
    uid
        The run's tag ``cfmvc.uid``; known before MLflow has answered.
    stage
        Name of the stage.
    tracking_uri
        Address of the store, without passwords; an SQLite file relative to the project.
    """

    uid: str
    stage: str
    tracking_uri: str

    def as_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return asdict(self)


def read_link(path: Path) -> RunLink:
    """Read the link that a stage has written."""
    return RunLink(**read_json(path))


def find_run(link: RunLink, workspace: Path) -> Any | None:
    """Return the MLflow run of a link, or None if the store does not know it (yet).

    Raises
    ------
    TrackingError
        If the store cannot be reached.
    """
    from cfmvc.tracking.store import Store

    store = Store.connect(_address(link, workspace), workspace)
    return store.find_run(link.uid, store.experiment_ids())


def _address(link: RunLink, workspace: Path) -> str:
    """Return the store's address: the environment's, if it is the same but for the password."""
    from cfmvc.tracking.config import URI_VARIABLE, absolute_uri, shareable_uri

    given = os.environ.get(URI_VARIABLE)
    if given and shareable_uri(absolute_uri(given, workspace), workspace) == link.tracking_uri:
        return absolute_uri(given, workspace)
    return absolute_uri(link.tracking_uri, workspace)
