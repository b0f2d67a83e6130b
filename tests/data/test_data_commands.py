"""``cfmvc data check`` and ``cfmvc data add``, as a user runs them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData, read_h5ad
from ruamel.yaml import YAML
from typer.testing import CliRunner

from cfmvc.cli.data import app
from cfmvc.cli.params_text import with_value
from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data.canonical import load_cells
from cfmvc.data.config import DataConfig
from cfmvc.errors import ConfigError, DataError
from cfmvc.files import md5_of_file
from tests.data import malformed as broken


def cfmvc_data(*words: str | Path):
    return CliRunner().invoke(app, [str(word) for word in words])


def run(*words: str | Path, cwd: Path) -> str:
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def file(cells: AnnData, tmp_path: Path) -> Path:
    path = tmp_path / "mine.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def new_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git and DVC repository with the shipped params.yaml, dvc.yaml and .gitignore."""
    dvc = Path(sys.executable).parent / "dvc"
    if not dvc.is_file():
        pytest.skip("dvc is not installed in this environment")
    folder = tmp_path_factory.mktemp("new") / "project"
    folder.mkdir()
    params = default_params_file()
    for name in ("params.yaml", "dvc.yaml", ".gitignore"):
        shutil.copy(params.parent / name, folder)
    run("git", "init", "-q", cwd=folder)
    run(dvc, "init", "-q", cwd=folder)
    run(dvc, "config", "core.analytics", "false", cwd=folder)
    run("git", "add", "-A", cwd=folder)
    run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x", cwd=folder)
    return folder


@pytest.fixture
def project(new_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository, which is the working folder."""
    folder = shutil.copytree(new_project, tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def test_check_says_that_a_good_file_is_usable(file: Path) -> None:
    result = cfmvc_data("check", file)
    assert result.exit_code == 0
    assert "60 cells x 12 genes, 2 perturbations, 2 batches, 2 cell types" in result.stdout
    assert "usable (0 errors" in result.stdout


def test_check_names_every_fault_for_people_and_for_machines(
    cells: AnnData, tmp_path: Path
) -> None:
    broken.everything(cells)
    path = tmp_path / "broken.h5ad"
    cells.write_h5ad(path)

    for_people = cfmvc_data("check", path)
    report = json.loads(cfmvc_data("check", path, "--json").stdout)

    assert for_people.exit_code == 2
    assert cfmvc_data("check", path, "--json").exit_code == 2
    errors = [fault for fault in report["faults"] if fault["severity"] == "error"]
    assert len(errors) == 9
    assert report["is_usable"] is False
    for fault in errors:
        assert fault["where"] in for_people.stdout
        assert fault["message"] in for_people.stdout
    assert f"not usable ({len(errors)} errors" in for_people.stdout


def test_check_takes_the_users_names(cells: AnnData, tmp_path: Path) -> None:
    cells.obs = cells.obs.rename(columns={"perturbation": "guide"})
    broken.rename("guide", "control", "NT")(cells)
    broken.layer_is_x(cells)
    path = tmp_path / "named.h5ad"
    cells.write_h5ad(path)
    assert cfmvc_data("check", path).exit_code == 2
    named = cfmvc_data(
        "check", path, "--map", "perturbation=guide", "--control", "NT", "--layer", "X"
    )
    assert named.exit_code == 0
    wrong = cfmvc_data("check", path, "--map", "perturbatoin=guide")
    assert isinstance(wrong.exception, ConfigError)
    nothing = cfmvc_data("check", path, "--map", "perturbation=")
    assert isinstance(nothing.exception, ConfigError)


def test_check_passes_over_what_is_no_dose(cells: AnnData, tmp_path: Path) -> None:
    cells.obs["dose"] = "a lot"
    path = tmp_path / "dosed.h5ad"
    cells.write_h5ad(path)
    refused = cfmvc_data("check", path)
    assert refused.exit_code == 2
    assert "--map dose=" in refused.stdout
    assert cfmvc_data("check", path, "--map", "dose=").exit_code == 0


def test_check_of_no_h5ad_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    result = cfmvc_data("check", path)
    assert result.exit_code == 2
    assert "not an HDF5 file" in result.stdout
    report = json.loads(cfmvc_data("check", path, "--json").stdout)
    assert (report["is_usable"], report["n_cells"]) == (False, None)


def test_add_puts_a_file_under_dvc_and_changes_one_line(project: Path, cells: AnnData) -> None:
    source = project.parent / "screen.h5ad"
    broken.rename("perturbation", "control", "NT")(cells)
    cells.obs = cells.obs.rename(columns={"batch": "donor"})
    cells.write_h5ad(source)

    words = ["add", source, "--map", "batch=donor", "--control", "NT"]
    result = cfmvc_data(*words)
    assert result.exit_code == 0, result.output

    added = project / "data/raw/screen.h5ad"
    diff = run("git", "diff", "--unified=0", "params.yaml", cwd=project).splitlines()
    lines = [line for line in diff if line[:1] in "+-" and not line.startswith(("+++", "---"))]
    assert lines == [
        "-  path: data/raw/simulated.h5ad  # `cfmvc data add FILE` changes this line",
        "+  path: data/raw/screen.h5ad  # `cfmvc data add FILE` changes this line",
    ]
    # git sees the pointer and not the cells; dvc has the cells
    status = run("git", "status", "--porcelain", "-uall", cwd=project)
    assert "data/raw/screen.h5ad.dvc" in status
    assert "data/raw/screen.h5ad\n" not in status
    pointer = read_yaml(project / "data/raw/screen.h5ad.dvc")
    assert pointer["outs"][0]["md5"] == md5_of_file(added)
    canonical = read_h5ad(added)
    assert set(canonical.obs["perturbation"]) == {"control", "A", "B"}
    assert canonical.uns["cfmvc"] == {
        "control": "control",
        "control_in_source": "NT",
        "separator": "+",
        "source_file": "screen.h5ad",
        "source_md5": md5_of_file(source),
    }
    # once more: nothing changes; and the canonical file itself can be added under another name
    before = md5_of_file(added)
    assert cfmvc_data(*words).exit_code == 0
    assert md5_of_file(added) == before
    assert cfmvc_data("add", added, "--name", "again").exit_code == 0
    assert read_yaml(project / "params.yaml")["data"]["path"] == "data/raw/again.h5ad"
    assert md5_of_file(project / "data/raw/again.h5ad") == before


def test_add_does_not_replace_another_file_unless_forced(
    project: Path, file: Path, cells: AnnData
) -> None:
    assert cfmvc_data("add", file, "--name", "x").exit_code == 0
    before = md5_of_file(project / "data/raw/x.h5ad")
    other = file.parent / "other.h5ad"
    cells[:54].copy().write_h5ad(other)

    refused = cfmvc_data("add", other, "--name", "x")
    assert isinstance(refused.exception, DataError)
    assert "another file of this name is there" in str(refused.exception)
    assert md5_of_file(project / "data/raw/x.h5ad") == before
    assert cfmvc_data("add", other, "--name", "x", "--force").exit_code == 0
    assert read_h5ad(project / "data/raw/x.h5ad").n_obs == 54


def test_add_of_a_broken_file_leaves_everything_as_it_was(project: Path, cells: AnnData) -> None:
    broken.everything(cells)
    path = project.parent / "broken.h5ad"
    cells.write_h5ad(path)
    result = cfmvc_data("add", path)
    assert isinstance(result.exception, DataError)
    assert len(str(result.exception).splitlines()) == 1 + 9
    assert run("git", "status", "--porcelain", cwd=project) == ""


def test_add_says_what_is_missing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    monkeypatch.chdir(bare)
    assert "no params.yaml in" in str(cfmvc_data("add", file).exception)
    params = default_params_file().read_text()
    (bare / "params.yaml").write_text(params)
    assert "run: git init && dvc init" in str(cfmvc_data("add", file).exception)


def test_add_refuses_names_that_the_canonical_file_would_not_have(
    project: Path, file: Path
) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("  control: control", "  control: NT"))
    refused = cfmvc_data("add", file)
    assert isinstance(refused.exception, ConfigError)
    assert "data.control: 'NT' in params.yaml, but files under data/raw use 'control'" in str(
        refused.exception
    )
    assert not (project / "data").exists()


def test_add_refuses_a_name_that_leaves_the_folder(project: Path, file: Path) -> None:
    refused = cfmvc_data("add", file, "--name", "../../x")
    assert isinstance(refused.exception, ConfigError)
    assert not (project / "data").exists()


def test_add_refuses_the_name_of_a_stages_output(project: Path, cells: AnnData) -> None:
    source = project.parent / "simulated.h5ad"
    cells.write_h5ad(source)
    refused = cfmvc_data("add", source)
    assert isinstance(refused.exception, ConfigError)
    assert str(refused.exception) == (
        "data/raw/simulated.h5ad: is made by the stage 'simulate' of dvc.yaml; "
        "give the data another name with --name NAME"
    )
    assert not (project / "data").exists()
    assert cfmvc_data("add", source, "--name", "theirs").exit_code == 0


def test_add_says_why_dvc_refuses(project: Path, file: Path) -> None:
    (project / ".dvcignore").write_text("*.h5ad\n")
    refused = cfmvc_data("add", file)
    assert isinstance(refused.exception, ConfigError)
    assert "ignored" in str(refused.exception)
    assert str(refused.exception).endswith("params.yaml is as it was")


def test_labels_with_the_separator_in_them_are_kept_whole(project: Path, cells: AnnData) -> None:
    source = project.parent / "drugs.h5ad"
    broken.rename("perturbation", "A", "(+)-JQ1")(cells)
    cells.write_h5ad(source)
    assert "if they are no parts" in cfmvc_data("check", source).stdout
    assert cfmvc_data("check", source, "--separator", "").stdout.endswith(
        "(0 errors, 0 warnings)\n"
    )

    result = cfmvc_data("add", source, "--separator", "")
    assert result.exit_code == 0, result.output
    assert "data.path and data.separator of params.yaml" in result.stdout
    diff = run("git", "diff", "--unified=0", "params.yaml", cwd=project).splitlines()
    added = [line for line in diff if line.startswith("+ ")]
    assert added == [
        "+  path: data/raw/drugs.h5ad  # `cfmvc data add FILE` changes this line",
        '+  separator: ""',
    ]
    assert read_h5ad(project / "data/raw/drugs.h5ad").uns["cfmvc"]["separator"] == ""
    data = parse_section(DataConfig, read_yaml(project / "params.yaml")["data"], "data")
    canonical = load_cells(project / data.path, data)
    assert list(canonical.obs["perturbation"].cat.categories) == ["(+)-JQ1", "B", "control"]


def test_add_names_what_it_leaves_out(project: Path, cells: AnnData) -> None:
    cells.X = cells.layers["counts"].copy()
    cells.layers["scaled"] = cells.layers["counts"].copy()
    cells.obsm["spatial"] = np.zeros((60, 2))
    cells.obsm["X_pca"] = np.zeros((60, 3))
    cells.varm["PCs"] = np.zeros((12, 3))
    cells.uns |= {"gene_embeddings": np.zeros((2, 5)), "title": "a screen"}
    source = project.parent / "rich.h5ad"
    cells.write_h5ad(source)
    left_out = ["X", "layers['scaled']", "obsm['X_pca']", "varm['PCs']", "uns['gene_embeddings']"]
    lines = cfmvc_data("add", source).stdout.splitlines()
    assert f"left out, for nothing uses it: {', '.join(left_out)}" in lines
    assert json.loads(cfmvc_data("add", source, "--json").stdout)["left_out"] == left_out


def test_add_prints_json(project: Path, cells: AnnData) -> None:
    broken.unseen_gene(cells)
    file = project.parent / "mine.h5ad"
    cells.write_h5ad(file)
    result = json.loads(cfmvc_data("add", file, "--separator", "_", "--json").stdout)
    warnings = result.pop("warnings")
    assert [fault["message"] for fault in warnings] == ["1 of 12 genes are never seen"]
    assert result == {
        "path": "data/raw/mine.h5ad",
        "n_cells": 60,
        "n_genes": 12,
        "left_out": [],
        "changed": {"data.path": "data/raw/mine.h5ad", "data.separator": "_"},
    }
    assert json.loads(cfmvc_data("add", file, "--json").stdout)["changed"] == {}


@pytest.mark.parametrize("separator", ["", "_", " & ", "#", "|", ": ", "\\", '"', "1", "-", "\t"])
def test_any_separator_can_be_written(separator: str) -> None:
    before = "data:\n  path: a\n  separator: '+'  # joins\n"
    changed = with_value(before, "data", "separator", separator)
    assert changed.endswith("  # joins\n")
    assert YAML(typ="safe").load(changed)["data"] == {"path": "a", "separator": separator}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("data:\n  path: a.h5ad\n", "data:\n  path: n.h5ad\n"),
        ("data:\n  path:   'a b.h5ad'   # here\n", "data:\n  path:   n.h5ad   # here\n"),
        ('x: {path: a}\r\ndata:\r\n  path: "a"\r\n', "x: {path: a}\r\ndata:\r\n  path: n.h5ad\r\n"),
        ("data: {path: a.h5ad, control: c}\n", "data: {path: n.h5ad, control: c}\n"),
        ("data:\n  # path: no\n  path: a#b.h5ad # é", "data:\n  # path: no\n  path: n.h5ad # é"),
    ],
)
def test_one_value_changes_and_all_else_stays(before: str, after: str) -> None:
    assert with_value(before, "data", "path", "n.h5ad") == after


def test_a_value_over_several_lines_is_left_alone() -> None:
    with pytest.raises(ConfigError, match=r"set data\.path to n\.h5ad by hand"):
        with_value("data:\n  path: >\n    a.h5ad\n", "data", "path", "n.h5ad")


def test_add_does_not_replace_the_file_itself_by_its_canonical_copy(
    project: Path, cells: AnnData
) -> None:
    raw = project / "data" / "raw" / "mine.h5ad"
    raw.parent.mkdir(parents=True, exist_ok=True)
    cells.layers["other"] = cells.layers["counts"].copy()
    cells.write_h5ad(raw)
    before = md5_of_file(raw)
    refused = cfmvc_data("add", raw, "--force")
    assert isinstance(refused.exception, DataError)
    assert "is the file itself" in str(refused.exception)
    assert md5_of_file(raw) == before


def test_no_torch_to_check_a_file(file: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from cfmvc.cli.data import app;"
        f"r = CliRunner().invoke(app, ['check', {str(file)!r}]); assert r.exit_code == 0, r.output;"
        "assert 'torch' not in sys.modules and 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
