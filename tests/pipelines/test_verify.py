"""`cfmvc registry verify` on what a real `dvc repro` has registered."""

import json
from pathlib import Path

from tests.pipelines.conftest import Project, copy_of


def test_what_dvc_repro_registers_is_proven_to_the_last_link(built: Project) -> None:
    output = built.run("cfmvc", "registry", "verify", "candidate")
    assert "models:/cfmvc/1: the chain holds: 13 links proven" in output


def test_missing_data_break_the_chain(built: Project, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path)
    (project.folder / "data" / "raw" / "simulated.h5ad").unlink()
    report = json.loads(project.run("cfmvc", "registry", "verify", "1", "--json", expect=7))
    assert report["verdict"] == (
        "broken at data: data/raw/simulated.h5ad is missing; `dvc pull` gets it"
    )
    assert [link["name"] for link in report["links"] if link["state"] != "ok"] == ["data"]


def test_a_training_is_proven_as_well(built: Project) -> None:
    uid = json.loads((built.folder / "results/runs/train_flow.json").read_text())["uid"]
    output = built.run("cfmvc", "registry", "verify", uid)
    assert "the chain holds: 8 links proven" in output
