"""``cfmvc simulate``, as a user runs it."""

import json
from pathlib import Path

import pytest
from anndata import read_h5ad
from typer.testing import CliRunner

from cfmvc.cli.app import app as root
from cfmvc.cli.data import simulate_command
from cfmvc.config import default_params_file
from cfmvc.errors import CfmvcError, ConfigError
from tests.data.test_data_commands import cfmvc_data


def test_simulate_writes_cells_and_truth(tmp_path: Path) -> None:
    out, truth = tmp_path / "cells.h5ad", tmp_path / "truth.h5ad"
    simulate_command(
        out, truth, ["simulate.n_cells=200", "simulate.n_genes=20"], default_params_file()
    )
    assert read_h5ad(out).shape == (200, 20)
    assert read_h5ad(truth).layers["mean"].shape[1] == 20
    assert cfmvc_data("check", out).exit_code == 0


def test_simulate_names_a_misspelt_setting(tmp_path: Path) -> None:
    with pytest.raises(CfmvcError, match="did you mean 'n_cells'"):
        simulate_command(tmp_path / "x.h5ad", None, ["simulate.n_cell=3"], default_params_file())


def cfmvc_simulate(*words: str | Path):
    small = ["--set", "simulate.n_cells=200", "--set", "simulate.n_genes=20"]
    return CliRunner().invoke(root, ["simulate", *map(str, words), *small])


def test_simulate_leaves_a_folder_and_other_files_alone(tmp_path: Path) -> None:
    folder, there = tmp_path / "folder", tmp_path / "there.h5ad"
    folder.mkdir()
    (folder / "precious").write_text("all of it")
    there.write_text("precious")
    new = tmp_path / "new.h5ad"
    for words, message in (
        (["--out", folder], f"--out {folder}: is a folder; name a file"),
        (["--out", new, "--truth", folder], f"--truth {folder}: is a folder; name a file"),
        (
            ["--out", there],
            f"--out {there}: exists; name another file, or replace it with --force",
        ),
        (
            ["--out", new, "--truth", there],
            f"--truth {there}: exists; name another file, or replace it with --force",
        ),
        (
            ["--out", new, "--truth", new],
            f"--truth {new}: is the file of --out as well; name another",
        ),
    ):
        refused = cfmvc_simulate(*words)
        assert isinstance(refused.exception, ConfigError)
        assert str(refused.exception) == message
    assert (folder / "precious").read_text() == "all of it"
    assert there.read_text() == "precious"
    assert not new.exists()
    assert cfmvc_simulate("--out", there, "--force").exit_code == 0
    assert read_h5ad(there).n_obs == 200


def test_simulate_prints_json(tmp_path: Path) -> None:
    out, truth = tmp_path / "cells.h5ad", tmp_path / "truth.h5ad"
    result = json.loads(cfmvc_simulate("--out", out, "--truth", truth, "--json").stdout)
    assert result == {
        "out": str(out),
        "truth": str(truth),
        "n_cells": 200,
        "n_genes": 20,
        "n_conditions": read_h5ad(truth).n_obs,
    }
