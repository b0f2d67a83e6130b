"""``cfmvc fit`` and ``cfmvc predict``, for people without DVC."""

import json
import shlex
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from cfmvc.cli.app import app
from cfmvc.errors import CfmvcError
from tests.training.conftest import small_adata

QUICK = [
    "--set=vae.n_epochs=2",
    "--set=flow.n_epochs=2",
    "--set=vae.hidden_dim=16",
    "--set=compute.n_threads=1",
]


def cfmvc(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)


def refusal(*words: str | Path) -> str:
    result = cfmvc(*words)
    assert isinstance(result.exception, CfmvcError), result.output
    return str(result.exception)


@pytest.fixture(scope="module")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.h5ad"
    small_adata(300, 25).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def model(train_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "model"
    result = cfmvc("fit", train_file, "--out", out, *QUICK, "--json")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def conditions(tmp_path: Path) -> Path:
    path = tmp_path / "conditions.csv"
    path.write_text(
        "perturbation,batch,cell_type,n_cells\nA,b1,T,30\nA+B,b2,B,20\ncontrol,b1,B,10\n"
    )
    return path


def test_prediction_holds_what_was_asked_for(
    model: Path, train_file: Path, conditions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pred.h5ad"
    result = cfmvc(
        *("predict", "--model", model, "--conditions", conditions),
        *("--controls", train_file, "--out", out, "--seed", "3", "--json"),
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_cells"] == 60
    cells = anndata.read_h5ad(out)
    assert cells.shape == (60, 25)
    assert list(cells.var_names) == [f"gene{i}" for i in range(25)]
    sizes = cells.obs.groupby(["perturbation", "batch", "cell_type"], observed=True).size()
    assert dict(sizes) == {("A", "b1", "T"): 30, ("A+B", "b2", "B"): 20, ("control", "b1", "B"): 10}
    counts, mean = cells.layers["counts"].toarray(), np.asarray(cells.layers["mean"])
    assert (counts == np.round(counts)).all()
    assert (counts >= 0).all()
    assert (mean >= 0).all()
    assert (mean.sum(0) > 0).all()
    assert np.corrcoef(counts.mean(0), mean.mean(0))[0, 1] > 0.9


def test_no_perturbation_gives_the_control_cells_themselves(
    model: Path, train_file: Path, tmp_path: Path
) -> None:
    conditions, out = tmp_path / "conditions.csv", tmp_path / "pred.h5ad"
    conditions.write_text("perturbation,batch,cell_type,n_cells\ncontrol,b1,T,40\nA,b1,T,40\n")
    command = ("predict", "--model", model, "--conditions", conditions, "--controls", train_file)
    assert cfmvc(*command, "--out", out).exit_code == 0
    real, cells = anndata.read_h5ad(train_file), anndata.read_h5ad(out)
    where = {"perturbation": "control", "batch": "b1", "cell_type": "T"}
    rows = np.logical_and.reduce([(real.obs[name] == label) for name, label in where.items()])
    known = {tuple(row) for row in real[rows].layers["counts"].toarray().astype(int)}
    is_control = (cells.obs["perturbation"] == "control").to_numpy()
    unperturbed = [tuple(row) for row in cells[is_control].layers["counts"].toarray()]
    assert set(unperturbed) <= known
    # each control serves before any serves twice
    assert len(set(unperturbed)) == min(40, len(known))
    perturbed = {tuple(row) for row in cells[~is_control].layers["counts"].toarray()}
    assert not perturbed & known
    # and each says which it is made of
    made_of = cells.obs["control_cell"].astype(str)
    assert set(made_of) <= set(real.obs_names[rows])
    there = real[made_of[is_control]].layers["counts"].toarray()
    np.testing.assert_array_equal(cells[is_control].layers["counts"].toarray(), there)


def test_same_seed_same_bytes(
    model: Path, train_file: Path, conditions: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"pred{i}.h5ad" for i in range(3)]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        cfmvc(
            *("predict", "--model", model, "--conditions", conditions),
            *("--controls", train_file, "--out", file, "--seed", str(seed)),
        )
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() != files[2].read_bytes()


def test_without_means_the_counts_are_the_same(
    model: Path, train_file: Path, conditions: Path, tmp_path: Path
) -> None:
    made = []
    for options in ((), ("--no-means",)):
        out = tmp_path / f"pred{len(made)}.h5ad"
        command = ("predict", "--model", model, "--conditions", conditions, "--out", out)
        cfmvc(*command, "--controls", train_file, *options)
        made.append(anndata.read_h5ad(out))
    assert [set(cells.layers) for cells in made] == [{"counts", "mean"}, {"counts"}]
    assert (made[0].layers["counts"] != made[1].layers["counts"]).nnz == 0


def test_controls_alone_are_enough_and_may_come_from_the_model(
    model: Path, train_file: Path, conditions: Path, tmp_path: Path
) -> None:
    cells = anndata.read_h5ad(train_file)
    controls = tmp_path / "controls.h5ad"
    cells[(cells.obs["perturbation"] == "control").to_numpy()].copy().write_h5ad(controls)
    command = ("predict", "--model", model, "--conditions", conditions)
    for number, extra in enumerate((("--controls", controls), ())):
        result = cfmvc(*command, *extra, "--out", tmp_path / f"pred{number}.h5ad")
        assert result.exit_code == 0, f"{result.output} {result.exception}"


def test_unknown_labels_list_the_known_ones(model: Path, train_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "conditions.csv"
    command = ("predict", "--model", model, "--conditions", path, "--controls", train_file)
    for row, message in (
        ("IFNg,b1,T,5", "unknown perturbation 'IFNg'; the model knows 'control', 'A', 'B'"),
        ("A,b9,T,5", "unknown batch 'b9'"),
        ("A,b1,NK,5", "unknown cell type 'NK'"),
        ("A+C,b1,T,5", "unknown perturbation 'C'"),
        (
            "A,b1,T,0",
            "conditions: n_cells: must be a positive integer, 10,000,000 at most (row 1: 0)",
        ),
        (",b1,T,5", "conditions: perturbation: empty in row 1"),
        ("A,b1,T,5,much", "conditions: dose: not a number (row 1)"),
        ("A,b1,T,5,", "dose: 1 of 1 doses are negative or not finite"),
    ):
        columns = "perturbation,batch,cell_type,n_cells" + ",dose" * (row.count(",") == 4)
        path.write_text(f"{columns}\n{row}\n")
        assert message in refusal(*command, "--out", tmp_path / "pred.h5ad")
    path.write_text("perturbation, batch, cell_type, n_cells\nZ, b9, B, 2\nY, b1, B, 2\n")
    said = refusal(*command, "--out", tmp_path / "pred.h5ad")
    for unknown in ("perturbation 'Z'", "perturbation 'Y'", "batch 'b9'"):
        assert f"unknown {unknown}" in said
    assert "what is written is AnnData; name it pred.h5ad" in refusal(
        *command, "--out", tmp_path / "pred.csv"
    )
    path.write_text("perturbation;batch;cell_type;n_cells\nA;b1;B;2\n")
    assert "separate the columns with commas" in refusal(*command, "--out", tmp_path / "p.h5ad")
    path.write_text("perturbation,batch\nA,b1\n")
    assert "conditions: no column 'cell_type', 'n_cells'" in refusal(
        *command, "--out", tmp_path / "pred.h5ad"
    )


def test_strata_without_controls_are_named(
    model: Path, train_file: Path, conditions: Path, tmp_path: Path
) -> None:
    cells = anndata.read_h5ad(train_file)
    is_b1 = (cells.obs["batch"] == "b1").to_numpy()
    cells[is_b1].copy().write_h5ad(tmp_path / "b1.h5ad")
    message = refusal(
        *("predict", "--model", model, "--conditions", conditions),
        *("--controls", tmp_path / "b1.h5ad", "--out", tmp_path / "pred.h5ad"),
    )
    assert "no control cell of 'b2 | B' (batch | cell type), needed by 1 of 3" in message


def test_genes_that_are_missing_are_named(
    model: Path, train_file: Path, conditions: Path, tmp_path: Path
) -> None:
    fewer = tmp_path / "fewer.h5ad"
    anndata.read_h5ad(train_file)[:, :20].copy().write_h5ad(fewer)
    message = refusal(
        *("predict", "--model", model, "--conditions", conditions),
        *("--controls", fewer, "--out", tmp_path / "pred.h5ad"),
    )
    assert "5 of the model's 25 genes are missing: 'gene20'" in message


def test_genes_in_another_order_give_the_same_cells(
    model: Path, train_file: Path, conditions: Path, tmp_path: Path
) -> None:
    shuffled = tmp_path / "shuffled.h5ad"
    anndata.read_h5ad(train_file)[:, ::-1].copy().write_h5ad(shuffled)
    files = {}
    for controls in (train_file, shuffled):
        files[controls] = tmp_path / f"pred-{controls.stem}.h5ad"
        cfmvc(
            *("predict", "--model", model, "--conditions", conditions),
            *("--controls", controls, "--out", files[controls]),
        )
    one, two = (anndata.read_h5ad(file) for file in files.values())
    np.testing.assert_array_equal(one.layers["counts"].toarray(), two.layers["counts"].toarray())


def test_fit_refuses_what_it_does_not_know(train_file: Path, tmp_path: Path, model: Path) -> None:
    fit = ("fit", train_file, "--out", tmp_path / "m")
    assert "no key 'learning_rate' in section 'flow'" in refusal(
        *fit, "--set", "flow.learning_rate=1"
    )
    assert "no section 'flo' (did you mean 'flow'?)" in refusal(*fit, "--set", "flo.lr=1")
    assert "flow.source: Input should be 'noise' or 'control'" in refusal(
        *fit, "--set", "flow.source=cells"
    )
    assert "exists; choose another folder" in refusal("fit", train_file, "--out", model)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "notes.txt").write_text("mine")
    assert "is not a cfmvc model" in refusal("fit", train_file, "--out", precious, "--force")
    assert (precious / "notes.txt").read_text() == "mine"
    assert "no such column" in refusal(*fit, "--map", "batch=donor")
    assert not (tmp_path / "m").exists()


def test_fit_loses_nothing_that_lies_in_the_models_folder(
    train_file: Path, tmp_path: Path, model: Path
) -> None:
    mine = tmp_path / "model"
    shutil.copytree(model, mine)
    data = mine / "train.h5ad"
    data.write_bytes(train_file.read_bytes())
    assert f"holds the input {data}, which would be lost" in refusal(
        "fit", data, "--out", mine, "--force"
    )
    assert "would be lost: 'train.h5ad'" in refusal("fit", train_file, "--out", mine, "--force")
    assert data.read_bytes() == train_file.read_bytes()


def test_what_cannot_be_trained_together_is_told_before_anything_is(
    train_file: Path, tmp_path: Path
) -> None:
    tissue = anndata.read_h5ad(train_file)
    tissue.obsm["spatial"] = np.random.default_rng(0).uniform(size=(tissue.n_obs, 2))
    tissue.write_h5ad(tmp_path / "tissue.h5ad")
    both = ("--set", "flow.n_neighbours=4", "--set", "joint.n_epochs=1")
    said = refusal("fit", tmp_path / "tissue.h5ad", "--out", tmp_path / "m", *both)
    assert "set one of the two to 0" in said
    assert not list(tmp_path.rglob("*.safetensors"))


def test_predict_never_writes_over_what_it_reads(
    model: Path, train_file: Path, conditions: Path, tmp_path: Path
) -> None:
    controls = tmp_path / "controls.h5ad"
    controls.write_bytes(train_file.read_bytes())
    command = ("predict", "--model", model, "--conditions", conditions, "--controls", controls)
    before = controls.read_bytes(), conditions.read_bytes()
    for target in (controls, conditions):
        assert "is one of the inputs" in refusal(*command, "--out", target, "--force")
    assert "is a folder" in refusal(*command, "--out", model, "--force")
    other = tmp_path / "other.h5ad"
    other.write_text("mine")
    assert "exists; name another file" in refusal(*command, "--out", other)
    other.chmod(0o444)
    assert "is read-only" in refusal(*command, "--out", other, "--force")
    protected = tmp_path / "protected"
    protected.mkdir(mode=0o555)
    assert "not a writable folder" in refusal(*command, "--out", protected / "pred.h5ad")
    assert (controls.read_bytes(), conditions.read_bytes()) == before
    assert other.read_text() == "mine"


def test_another_label_of_the_control_is_understood(
    model: Path, train_file: Path, conditions: Path, tmp_path: Path
) -> None:
    cells = anndata.read_h5ad(train_file)
    cells = cells[(cells.obs["perturbation"] == "control").to_numpy()].copy()
    cells.obs["perturbation"] = "NT"
    cells.write_h5ad(tmp_path / "nt.h5ad")
    result = cfmvc(
        *("predict", "--model", model, "--conditions", conditions, "--control", "NT"),
        *("--controls", tmp_path / "nt.h5ad", "--out", tmp_path / "pred.h5ad"),
    )
    assert result.exit_code == 0, f"{result.output} {result.exception}"


def test_doses_are_learnt_and_asked_for(tmp_path: Path) -> None:
    adata = small_adata(300, 25)
    adata.obs["dose"] = np.where(adata.obs["perturbation"] == "control", 0.0, 2.0)
    train = tmp_path / "dosed.h5ad"
    adata.write_h5ad(train)
    assert cfmvc("fit", train, "--out", tmp_path / "m", *QUICK).exit_code == 0
    asked = pd.DataFrame(
        {"perturbation": "A", "batch": "b1", "cell_type": "T", "n_cells": 20, "dose": [0.0, 2.0]}
    )
    asked.to_csv(tmp_path / "conditions.csv", index=False)
    result = cfmvc(
        *("predict", "--model", tmp_path / "m", "--conditions", tmp_path / "conditions.csv"),
        *("--controls", train, "--out", tmp_path / "pred.h5ad"),
    )
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    assert sorted(anndata.read_h5ad(tmp_path / "pred.h5ad").obs["dose"].unique()) == [0.0, 2.0]
    asked.drop(columns="dose").to_csv(tmp_path / "conditions.csv", index=False)
    result = cfmvc(
        *("predict", "--model", tmp_path / "m", "--conditions", tmp_path / "conditions.csv"),
        *("--out", tmp_path / "undosed.h5ad"),
    )
    assert "no dose was asked for: 1 is taken, and that of the training is 2" in result.stderr


def test_vectors_that_tell_nothing_are_warned_of(
    train_file: Path, conditions: Path, tmp_path: Path
) -> None:
    vectors, later = tmp_path / "vectors.csv", tmp_path / "later.csv"
    vectors.write_text("A,1,2\nB,0,0\n")
    result = cfmvc("fit", train_file, "--out", tmp_path / "m", "--embeddings", vectors, *QUICK)
    assert f"warning: {vectors}: the vector of 'B' is 0 in all places" in result.stderr
    later.write_text("A,1,3\nB,0,0\nnew,1,1\n")
    result = cfmvc(
        *("predict", "--model", tmp_path / "m", "--conditions", conditions),
        *("--embeddings", later, "--out", tmp_path / "pred.h5ad"),
    )
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    assert f"warning: {later}: the vector of 'B' is 0 in all places" in result.stderr
    assert f"warning: {later}: the model keeps the vectors of its training for 'A'" in result.stderr


def test_the_next_command_works_as_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adata = small_adata(300, 25)
    adata.obs = adata.obs.rename(columns={"perturbation": "the guide", "batch": "donor"})
    adata.obs["the guide"] = adata.obs["the guide"].replace("control", "NT")
    train = tmp_path / "my cells.h5ad"
    adata.write_h5ad(train)
    monkeypatch.chdir(tmp_path)
    names = ("--map", "perturbation=the guide", "--set", "data.batch=donor", "--control", "NT")
    result = cfmvc("fit", train, "--out", "model", *names, *QUICK)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    header = "perturbation,batch,cell_type,n_cells"
    Path("conditions.csv").write_text(f"{header}\nA,b1,T,5\nNT,b2,B,5\n")
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("next: ")]
    program, *words = shlex.split(line.removeprefix("next: "))
    assert program == "cfmvc"
    result = cfmvc(*words)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    assert anndata.read_h5ad("pred.h5ad").n_obs == 10


def test_controls_are_read_with_the_models_separator(tmp_path: Path) -> None:
    adata = small_adata(300, 25)
    labels = {"A": "CD3+", "A+B": "CD3+|B"}  # half a combination, where + joins the parts
    adata.obs["perturbation"] = adata.obs["perturbation"].replace(labels)
    train, model = tmp_path / "train.h5ad", tmp_path / "model"
    adata.write_h5ad(train)
    names = ("--set", "data.separator=|")
    result = cfmvc("fit", train, "--out", model, *names, *QUICK)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    conditions = tmp_path / "conditions.csv"
    conditions.write_text("perturbation,batch,cell_type,n_cells\nCD3+|B,b1,T,5\n")
    result = cfmvc(
        *("predict", "--model", model, "--conditions", conditions),
        *("--controls", train, "--out", tmp_path / "pred.h5ad"),
    )
    assert result.exit_code == 0, f"{result.output} {result.exception}"


def test_a_parameter_file_without_a_section_is_told_which(train_file: Path, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("data: {}\nvae: null\nsplit: {}\ncompute: {}\nflow: {}\n")
    message = refusal("fit", train_file, "--out", tmp_path / "m", "--params", params)
    assert f"{params}: no section 'vae', 'joint', 'checkpoint'; sections: 'data', 'vae'" in message
