"""DVC's remote in the team's S3: what one pushes, another pulls, and nothing runs again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cfmvc.registry.hashes import sha256_of_folder
from tests.servers.s3 import S3

_GRAPH = """\
stages:
  train:
    cmd: python -c "import shutil; shutil.copytree('source', 'models')"
    deps: [source]
    outs: [models]
"""


def run(folder: Path, *commands: str) -> str:
    """Run commands as docs/team.md has them, and return what the last one says."""
    scripts = Path(sys.executable).parent
    said = ""
    for command in commands:
        done = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said = done.stdout
    return said


def keys(s3: S3) -> list[str]:
    """Return the commands that tell one clone its keys, and git nothing."""
    return [
        f"dvc remote modify --local team access_key_id {s3.key}",
        f"dvc remote modify --local team secret_access_key {s3.secret}",
    ]


@pytest.mark.slow
def test_a_fresh_clone_pulls_the_same_files(tmp_path: Path, bundle: Path, s3: S3) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    (mine / "dvc.yaml").write_text(_GRAPH)
    bundle.rename(mine / "source")
    run(
        mine,
        "git init -q && git config user.name ada && git config user.email ada@example.org",
        "dvc init -q && dvc repro -q",
        "dvc remote add --default team s3://dvc/cfmvc",
        f"dvc remote modify team endpointurl {s3.endpoint}",
        *keys(s3),
        "git add . && git commit -qm 'A model'",
        "dvc push -q",
    )
    assert s3.secret not in run(mine, "git grep -h . $(git rev-parse HEAD)")
    assert all(key.startswith("cfmvc/files/md5/") for key in s3.keys("dvc"))

    run(tmp_path, "git clone -q mine theirs")
    assert not (theirs / "models").exists()
    run(theirs, *keys(s3), "dvc pull -q")
    assert sha256_of_folder(theirs / "models") == sha256_of_folder(mine / "models")
    assert "up to date" in run(theirs, "dvc status")
