"""`cfmvc registry` in a project whose pipeline has run; the model has hardly trained."""

import itertools
import json
from pathlib import Path

import h5py
import pytest

from tests.pipelines.conftest import Project, copy_of

PROMOTE = ("cfmvc", "registry", "promote")


@pytest.mark.slow
def test_a_model_of_a_few_epochs_is_refused_and_may_be_forced(
    built: Project, tmp_path: Path
) -> None:
    project = copy_of(built, tmp_path)
    said = project.run(*PROMOTE, expect=3)
    assert "REFUSED: version 1 against the baselines" in said
    assert "NOT BETTER" in said
    assert "error: " in said
    assert "Traceback" not in said
    assert "--why" in project.run(*PROMOTE, "--force", expect=2)

    project.run(*PROMOTE, "1", "--force", "--why", "the only one there is")
    history = json.loads(project.run("cfmvc", "registry", "history", "--json"))
    assert [(row["decision"], row["from"]) for row in history] == [
        ("forced", None),
        ("refused", None),
    ]
    assert history[0]["why"] == "the only one there is"
    lock = project.run("git", "rev-parse", "HEAD").strip()
    assert {row["evidence"]["git_commit"] for row in history} == {lock}
    assert "version 1 is champion already" in project.run(*PROMOTE, expect=3)
    listed = json.loads(project.run("cfmvc", "registry", "list", "--json"))
    assert [row["aliases"] for row in listed] == [["candidate", "champion"]]
    shown = project.run("cfmvc", "registry", "show", "champion")
    assert "cfmvc.nan_steps" in shown
    assert "cfmvc.peak_memory_gib" in shown
    assert "healthy" in project.run("cfmvc", "registry", "doctor")
    assert "has no such version; versions: '1'" in project.run(
        "cfmvc", "registry", "show", "8", expect=2
    )


@pytest.mark.slow
def test_other_cells_and_cells_that_were_trained_on_are_no_evidence(
    built: Project, tmp_path: Path
) -> None:
    project = copy_of(built, tmp_path)
    before = json.loads((built.folder / "data" / "prepared" / "split.json").read_text())["held_out"]
    pairs = itertools.product(("P1", "P2"), ("type_1", "type_2"))
    others = [{"perturbation": p, "cell_type": cell_type} for p, cell_type in pairs]
    project.change({"split.held_out": [pair for pair in others if pair not in before][:1]})
    project.run("dvc", "repro", "prepare")
    said = project.run(*PROMOTE, expect=3)
    assert "void: version 1 (the candidate) was trained on" in said

    prepared = project.folder / "data" / "prepared" / "cells.h5ad"
    prepared.chmod(0o644)
    content = prepared.read_bytes()
    prepared.unlink()  # it may be a link into DVC's cache
    prepared.write_bytes(content)
    with h5py.File(prepared, "r+") as file:
        file.attrs["touched"] = True
    assert "cells.h5ad: not what dvc.lock says" in project.run(*PROMOTE, expect=2)
