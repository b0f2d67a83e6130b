"""Where a result came from, out of git and DVC's own files."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from cfmvc.tracking.lineage import lineage_tags
from cfmvc.tracking.origin import origin_of

DVC_YAML = """
stages:
  simulate:
    cmd: a
    outs: [data/raw/simulated.h5ad]
  prepare:
    cmd: b
    deps: ["${data.path}"]
    outs: [data/prepared/cells.h5ad, data/prepared/split.json]
  train_vae:
    cmd: c
    deps: [data/prepared/cells.h5ad]
    outs: [models/vae]
  train_flow:
    cmd: d
    deps: [data/prepared/cells.h5ad, models/vae]
    outs:
      - models/flow:
          persist: true
"""
DVC_LOCK = """
schema: '2.0'
stages:
  simulate:
    cmd: a
    outs: [{path: data/raw/simulated.h5ad, md5: m-raw}]
  prepare:
    cmd: b
    outs: [{path: data/prepared/cells.h5ad, md5: m-cells}]
  train_vae:
    cmd: c
    outs: [{path: models/vae, md5: m-vae.dir}]
  train_flow:
    cmd: d
    outs: [{path: models/flow, md5: m-old.dir}]
"""


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "dvc.lock").write_text(DVC_LOCK)
    (tmp_path / "params.yaml").write_text("data:\n  path: data/raw/simulated.h5ad\n")
    (tmp_path / "data" / "prepared").mkdir(parents=True)
    split = {"sha256": "s-hash", "data_md5": "d-md5"}
    (tmp_path / "data" / "prepared" / "split.json").write_text(json.dumps(split))
    git(tmp_path, "init", "-q", "-b", "work")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "start")
    return tmp_path


def test_commit_branch_and_whether_the_tree_was_changed(project: Path) -> None:
    tags = lineage_tags(project, "train_vae")
    assert tags["cfmvc.git_commit"] == git(project, "rev-parse", "HEAD")
    assert tags["cfmvc.git_branch"] == "work"
    assert tags["cfmvc.git_dirty"] == "false"
    (project / "notes.log").write_text("a log, or predictions, that no stage reads")
    assert lineage_tags(project, "train_vae")["cfmvc.git_dirty"] == "false"
    (project / "notes").mkdir()
    (project / "notes" / "site.yaml").write_text("")
    assert lineage_tags(project, "train_vae")["cfmvc.git_dirty"] == "false"
    module = project / "cfmvc" / "more.py"
    module.parent.mkdir()
    module.write_text("")
    assert lineage_tags(project, "train_vae")["cfmvc.git_dirty"] == "true"
    module.unlink()
    (project / "data" / "other.h5ad.dvc").write_text("")
    assert lineage_tags(project, "train_vae")["cfmvc.git_dirty"] == "true"
    (project / "data" / "other.h5ad.dvc").unlink()
    assert lineage_tags(project, "train_vae")["cfmvc.git_dirty"] == "false"
    (project / "params.yaml").write_text("data:\n  path: data/raw/simulated.h5ad\nx: 1\n")
    assert lineage_tags(project, "train_vae")["cfmvc.git_dirty"] == "true"


def test_outputs_that_a_stage_rests_on_and_no_others(project: Path) -> None:
    tags = lineage_tags(project, "train_flow")
    assert {name: tags[name] for name in tags if name.startswith("dvc.out.")} == {
        "dvc.out.data/prepared/cells.h5ad": "m-cells",
        "dvc.out.data/raw/simulated.h5ad": "m-raw",
        "dvc.out.models/vae": "m-vae.dir",
    }
    assert (tags["cfmvc.split_sha256"], tags["cfmvc.data_md5"]) == ("s-hash", "d-md5")


def test_the_runs_that_made_them(project: Path) -> None:
    lock = project / "dvc.lock"
    link = "{path: results/runs/train_vae.json, md5: m-link}"
    lock.write_text(lock.read_text().replace("m-vae.dir}", f"m-vae.dir}}, {link}"))
    runs = project / "results" / "runs"
    runs.mkdir(parents=True)
    for stage in ("prepare", "train_vae"):  # of `prepare`, dvc.lock knows no link
        link = {"uid": f"u-{stage}", "stage": stage, "tracking_uri": "sqlite:///mlflow.db"}
        (runs / f"{stage}.json").write_text(json.dumps(link))
    tags = lineage_tags(project, "train_flow")
    assert {n: v for n, v in tags.items() if n.startswith("cfmvc.run.")} == {
        "cfmvc.run.train_vae": "u-train_vae"
    }
    assert not any(name.startswith("cfmvc.run.") for name in lineage_tags(project, "train_vae"))


def test_a_stage_keeps_the_files_that_it_rests_on_and_their_md5s(project: Path) -> None:
    params = project / "params.yaml"
    params.write_bytes(params.read_bytes().replace(b"\n", b"\r\n"))
    origin = origin_of(project, "train_flow")
    assert set(origin.files) == {"dvc.lock", "params.yaml"}
    assert origin.files["params.yaml"].encode() == params.read_bytes()
    assert origin.tags["cfmvc.dvc_lock_md5"] == hashlib.md5(DVC_LOCK.encode()).hexdigest()
    assert origin.tags["cfmvc.params_md5"] == hashlib.md5(params.read_bytes()).hexdigest()
    assert (
        origin.tags["cfmvc.git_commit"] == lineage_tags(project, "train_flow")["cfmvc.git_commit"]
    )
    # what is no stage of dvc.yaml rests on neither
    assert origin_of(project, "fit").files == {}


def test_an_older_runs_split_is_not_taken_for_this_ones(project: Path) -> None:
    assert "cfmvc.split_sha256" not in lineage_tags(project, "prepare")


def test_data_that_no_stage_made_is_not_named_after_the_simulator(project: Path) -> None:
    (project / "params.yaml").write_text("data:\n  path: data/raw/kang.h5ad\n")
    assert "dvc.out.data/raw/simulated.h5ad" not in lineage_tags(project, "train_vae")


def test_a_folder_without_git_and_dvc_has_little_to_tell(tmp_path: Path) -> None:
    tags = lineage_tags(tmp_path, "fit")
    assert tags["mlflow.source.name"] == "fit"
    assert not any(name.startswith(("cfmvc.", "dvc.")) for name in tags)
