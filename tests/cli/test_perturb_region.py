"""``cfmvc perturb-region``, from files to files."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from typer.testing import CliRunner, Result

from cfmvc.cli.app import app
from cfmvc.errors import CfmvcError
from tests.cli.test_start import loaded
from tests.stages.conftest import small_tissue

QUICK = ("--set=vae.n_epochs=1", "--set=flow.n_epochs=1", "--set=vae.hidden_dim=16")
REGION = "10,60,20,90"


def cfmvc(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)


def refusal(*words: str | Path) -> str:
    result = cfmvc(*words)
    assert isinstance(result.exception, CfmvcError), result.output
    assert result.exception.exit_code == 2
    return str(result.exception)


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tissue.h5ad"
    cells = small_tissue()
    cells.obs["niche"] = np.where(cells.obsm["spatial"][:, 0] < 40, "core", "rim")
    cells.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def model(tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "model"
    result = cfmvc("fit", tissue, "--out", out, *QUICK)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def command(model: Path, tissue: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    return (
        *("perturb-region", "--model", model, "--cells", tissue, "--perturbation", "A"),
        *("--out", tmp_path / "changed.h5ad", "--n-steps", "3"),
    )


def test_cells_and_picture_are_written(
    command: tuple[str | Path, ...], tissue: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "change.png"
    result = cfmvc(*command, "--region", REGION, "--picture", picture, "--n-genes", "2", "--json")
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    told = json.loads(result.stdout)
    before, after = anndata.read_h5ad(tissue), anndata.read_h5ad(tmp_path / "changed.h5ad")
    assert list(after.obs_names) == list(before.obs_names)
    x, y = before.obsm["spatial"].T
    in_region = (x >= 10) & (x <= 60) & (y >= 20) & (y <= 90)
    np.testing.assert_array_equal(after.obs["in_region"], in_region)
    is_changed = in_region & (before.obs["perturbation"] == "control").to_numpy()
    counts = [cells.layers["counts"].toarray() for cells in (before, after)]
    np.testing.assert_array_equal(counts[0][~is_changed], counts[1][~is_changed])
    np.testing.assert_array_equal((after.obs["change"] > 0).to_numpy(), is_changed)
    assert after.layers["change"].dtype == np.float32
    np.testing.assert_array_equal(after.obsm["spatial"], before.obsm["spatial"])
    assert after.obs["niche"].tolist() == before.obs["niche"].tolist()
    asked = after.uns["perturb_region"]
    assert (asked["perturbation"], asked["region"], asked["dose"]) == ("A", REGION, 1.0)
    assert told["n_changed"] == asked["n_changed"] == is_changed.sum()
    assert told["n_in_region"] == in_region.sum()
    assert len(told["genes"]) == 2
    pixels = image.imread(picture)
    assert min(pixels.shape[:2]) > 400
    assert pixels[..., :3].std() > 0.02  # something is drawn


def test_the_same_command_gives_the_same_bytes(
    command: tuple[str | Path, ...], tmp_path: Path
) -> None:
    made = []
    for number in range(2):
        for kind in ("png", "svg"):
            picture = tmp_path / f"change.{kind}"
            result = cfmvc(*command, "--region", REGION, "--picture", picture, "--force")
            assert result.exit_code == 0, f"{result.output} {result.exception}"
            made.append((number, kind, picture.read_bytes()))
        made.append((number, "h5ad", (tmp_path / "changed.h5ad").read_bytes()))
    assert [row[1:] for row in made[:3]] == [row[1:] for row in made[3:]]


@pytest.mark.parametrize("extra", [("--perturbation", "control"), ("--dose", "0")])
def test_no_perturbation_changes_nothing(
    extra: tuple[str, ...], command: tuple[str | Path, ...], tissue: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "change.pdf"
    result = cfmvc(*command, "--region", REGION, *extra, "--picture", picture)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    assert "no perturbation, or dose 0: nothing changes" in result.stderr
    before, after = anndata.read_h5ad(tissue), anndata.read_h5ad(tmp_path / "changed.h5ad")
    np.testing.assert_array_equal(
        before.layers["counts"].toarray(), after.layers["counts"].toarray()
    )
    assert after.layers["change"].dtype == np.float32
    assert after.layers["change"].nnz == 0
    assert picture.stat().st_size > 0


def test_regions_of_every_kind(command: tuple[str | Path, ...], tissue: Path) -> None:
    places = anndata.read_h5ad(tissue).obsm["spatial"]
    inside = {
        "circle:50,50,30": np.hypot(*(places - 50).T) <= 30,
        "polygon:0,0;100,0;0,100": places.sum(1) < 100,
        "-5,50,-5,200": places[:, 0] <= 50,
        "obs:niche=core": places[:, 0] < 40,
    }
    for region, expected in inside.items():
        result = cfmvc(*command, "--region", region, "--json", "--force")
        assert result.exit_code == 0, f"{result.output} {result.exception}"
        assert json.loads(result.stdout)["n_in_region"] == expected.sum()


def test_the_users_names_are_understood(model: Path, tissue: Path, tmp_path: Path) -> None:
    cells = anndata.read_h5ad(tissue)
    cells.obs = cells.obs.rename(columns={"batch": "donor"})
    cells.obs["perturbation"] = cells.obs["perturbation"].astype(str).replace("control", "NT")
    cells.obsm["um"] = cells.obsm.pop("spatial")
    cells.layers["raw"] = cells.layers.pop("counts")
    named = tmp_path / "named.h5ad"
    cells.write_h5ad(named)
    names = ("--map", "batch=donor", "--map", "spatial=um", "--map", "counts_layer=raw")
    result = cfmvc(
        *("perturb-region", "--model", model, "--cells", named, "--perturbation", "A+B"),
        *("--region", "obs:donor=b1", "--out", tmp_path / "changed.h5ad"),
        *(*names, "--control", "NT", "--json"),
    )
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    is_b1 = (cells.obs["donor"] == "b1").to_numpy()
    told = json.loads(result.stdout)
    assert told["n_in_region"] == is_b1.sum()
    assert told["n_changed"] == (is_b1 & (cells.obs["perturbation"] == "NT").to_numpy()).sum()


def test_a_column_that_gave_way_to_another_is_still_asked_for_by_its_name(
    model: Path, tissue: Path, tmp_path: Path
) -> None:
    """Batches are read from ``donor``; the file's own ``batch`` are lanes of the same names."""
    cells = anndata.read_h5ad(tissue)
    cells.obs["donor"] = cells.obs["batch"]
    is_lane = np.arange(cells.n_obs) % 3 == 0
    cells.obs["batch"] = np.where(is_lane, "b1", "b2")
    cells.write_h5ad(tmp_path / "lanes.h5ad")
    result = cfmvc(
        *("perturb-region", "--model", model, "--cells", tmp_path / "lanes.h5ad"),
        *("--perturbation", "A", "--region", "obs:batch=b1", "--map", "batch=donor"),
        *("--out", tmp_path / "changed.h5ad", "--json"),
    )
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    assert json.loads(result.stdout)["n_in_region"] == is_lane.sum()


def test_a_region_of_one_section_alone(
    command: tuple[str | Path, ...], tissue: Path, tmp_path: Path
) -> None:
    asked = (*command, "--region", REGION, "--picture", tmp_path / "change.svg", "--json")
    everywhere = cfmvc(*asked)
    assert "batches whose coordinates overlap: 'b1', 'b2'" in everywhere.stderr
    of_all = (tmp_path / "change.svg").read_bytes()
    result = cfmvc(*asked, "--batch", "b1", "--force")
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    assert "overlap" not in result.stderr
    before, after = anndata.read_h5ad(tissue), anndata.read_h5ad(tmp_path / "changed.h5ad")
    is_b1 = (before.obs["batch"] == "b1").to_numpy()
    assert after.n_obs == before.n_obs
    assert not after.obs["in_region"][~is_b1].any()
    n_changed = [json.loads(run.stdout)["n_changed"] for run in (everywhere, result)]
    assert 0 < n_changed[1] < n_changed[0]
    assert (tmp_path / "change.svg").read_bytes() != of_all
    assert "no cell is of batch 'b'" in refusal(*asked, "--batch", "b", "--force")


def test_chosen_genes_are_reported(command: tuple[str | Path, ...]) -> None:
    result = cfmvc(*command, "--region", REGION, "--genes", "gene3, gene0", "--json")
    assert list(json.loads(result.stdout)["genes"]) == ["gene3", "gene0"]


def test_a_perturbation_that_was_never_seen_comes_by_its_embedding(
    command: tuple[str | Path, ...], tmp_path: Path
) -> None:
    vectors = pd.DataFrame([[1.0, 0.0], [0.0, 1.0]], ["A", "B"], ["0", "1"])
    new = tmp_path / "new.csv"
    pd.DataFrame([[0.9, 0.1]], index=["C"]).to_csv(new)
    asked = ("--region", REGION, "--perturbation", "C", "--embeddings", new)
    assert "this model was trained without any" in refusal(*command, *asked)
    cells = small_tissue()
    cells.uns["perturbation_embeddings"] = vectors
    train, model = tmp_path / "train.h5ad", tmp_path / "model"
    cells.write_h5ad(train)
    assert cfmvc("fit", train, "--out", model, *QUICK).exit_code == 0
    result = cfmvc(*command, *asked, "--model", model, "--json")
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    told = json.loads(result.stdout)
    assert told["mean_size"] > 0
    assert "C: no training cell was given 'C'; its embedding alone tells of it" in told["notes"]


def test_faults_are_named_before_anything_is_written(
    command: tuple[str | Path, ...], tissue: Path, tmp_path: Path
) -> None:
    def fault(*words: str | Path) -> str:
        return refusal(*command, *words)

    assert "none of 300 cells is in it; the coordinates run from x" in fault(
        "--region", "200,300,0,9"
    )
    assert "a region is x0,x1,y0,y1 or" in fault("--region", "1,2")
    assert "unknown perturbation 'C'; the model knows" in fault(
        "--region", REGION, "--perturbation", "C"
    )
    assert "the model does not know 'gene' (did you mean 'gene" in fault(
        "--region", REGION, "--genes", "gene"
    )
    assert "--genes, --n-genes: give one of them" in fault(
        *("--region", REGION, "--genes", "gene0", "--n-genes", "2")
    )
    assert "must end in '.png', '.svg', '.pdf'" in fault(
        "--region", REGION, "--picture", tmp_path / "change.bmp"
    )
    assert "is one of the inputs" in fault("--region", REGION, "--picture", tissue, "--force")
    assert "is the file of --out as well" in fault(
        "--region", REGION, "--picture", tmp_path / "changed.h5ad"
    )
    cells = anndata.read_h5ad(tissue)
    del cells.obsm["spatial"]
    cells.write_h5ad(tmp_path / "placeless.h5ad")
    assert "no coordinates (obsm['spatial'], 2 or 3 columns), so no region" in fault(
        "--region", REGION, "--cells", tmp_path / "placeless.h5ad"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["placeless.h5ad"]


def test_a_command_without_a_picture_needs_no_matplotlib(
    command: tuple[str | Path, ...], tmp_path: Path
) -> None:
    modules = loaded(*command, "--region", REGION)
    assert (tmp_path / "changed.h5ad").is_file()
    assert modules & {"mlflow", "matplotlib", "sklearn", "cfmvc.training.loop"} == set()
