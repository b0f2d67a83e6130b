"""What a run came from: as tags, and as the files themselves, whose md5s are among the tags."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from cfmvc.config import read_yaml
from cfmvc.errors import ConfigError
from cfmvc.tracking.environment import environment, requirements
from cfmvc.tracking.lineage import LOCK_TAG, PARAMS_TAG, lineage_tags

LOCK_FILE, PARAMS_FILE = "dvc.lock", "params.yaml"
ENVIRONMENT_FILE, REQUIREMENTS_FILE = "environment.json", "requirements.txt"
# Name of each artifact, and the tag that has the md5 of its bytes.
MD5_TAGS = {
    LOCK_FILE: LOCK_TAG,
    PARAMS_FILE: PARAMS_TAG,
    ENVIRONMENT_FILE: "cfmvc.environment_md5",
    REQUIREMENTS_FILE: "cfmvc.requirements_md5",
}


@dataclass(frozen=True)
class Origin:
    """What a run came from.

    Parameters
    ----------
    tags
        For the run: the md5s of the files among them.
    files
        Name and text of what the run keeps as artifacts.
    """

    tags: dict[str, str]
    files: dict[str, str]

    @classmethod
    def of(cls, files: dict[str, str], tags: dict[str, str]) -> "Origin":
        """Add the files' md5s to other tags."""
        return cls(tags | {MD5_TAGS[name]: _md5_of(text) for name, text in files.items()}, files)


def origin_of(workspace: Path, stage: str) -> Origin:
    """Collect what a stage's run comes from, before the stage does anything.

    A stage of ``dvc.yaml`` keeps ``dvc.lock`` (as it was before the stage's own entry) and
    ``params.yaml``; the tags are those of :func:`~cfmvc.tracking.lineage.lineage_tags` as well.
    """
    files = {}
    if _is_staged(workspace, stage):
        for name in (LOCK_FILE, PARAMS_FILE):
            if (workspace / name).is_file():
                # not read_text: line ends count
                files[name] = (workspace / name).read_bytes().decode()
    return Origin.of(files, lineage_tags(workspace, stage))


def machine() -> Origin:
    """Collect what a run works with: the machine, and all packages. It takes most of a second."""
    files = {
        ENVIRONMENT_FILE: json.dumps(environment(), indent=2) + "\n",
        REQUIREMENTS_FILE: requirements(),
    }
    return Origin.of(files, {})


def _is_staged(workspace: Path, stage: str) -> bool:
    try:
        return stage in (read_yaml(workspace / "dvc.yaml").get("stages") or {})
    except ConfigError:
        return False


def _md5_of(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
