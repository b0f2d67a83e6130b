"""A champion that cannot be compared on the present cells: a verdict in words, and no error."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cfmvc.data import Vocabulary
from cfmvc.errors import DataError
from cfmvc.registry.contestant import told_of_embeddings
from cfmvc.tracking.store import Store
from tests.registry.a_contest import (
    Contest,
    contest_cells,
    contestant,
    new_contest,
    with_vectors,
)
from tests.registry.conftest import N_GENES, VOCABULARY
from tests.registry.tampering import flip_a_byte
from tests.tracking.conftest import runs_of, store

__all__ = ["store"]

VECTORS = pd.DataFrame([[1.0, 0.0], [0.0, 1.0]], index=["a", "b"])
OTHER_PERTURBATIONS = Vocabulary(("control", "a", "z"), ("x", "y"), ("p", "q"))
OTHER_TYPES = Vocabulary(("control", "a", "b"), ("x", "y"), ("p", "r"))
OTHER_GENES = [f"gene-{number}" for number in range(1, N_GENES)] + ["of another panel"]


@pytest.fixture(scope="module")
def cells() -> AnnData:
    return contest_cells()


@pytest.fixture
def contest(workspace: Path, cells: AnnData) -> Contest:
    return new_contest(workspace, cells)


def force(contest: Contest, version: int) -> None:
    contest.ask("promote", str(version), "--force", "--why", "the first")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"vocabulary": OTHER_PERTURBATIONS}, "unknown perturbation 'b'"),
        ({"vocabulary": OTHER_TYPES}, "unknown cell type 'q'"),
        ({"genes": OTHER_GENES}, "1 of 12 genes are unknown to it: 'gene-0'"),
    ],
    ids=["perturbations", "cell types", "genes"],
)
def test_a_champion_of_other_labels_or_genes(
    contest: Contest, cells: AnnData, known: dict[str, object], reason: str
) -> None:
    champion = contest.register(contestant(contest.folder, cells, 0, **known))  # type: ignore[arg-type]
    force(contest, champion)
    candidate = contest.register(contestant(contest.folder, cells, 1))
    said = contest.ask("promote", str(candidate), expect=3)
    words = " ".join(said.split())
    assert "REFUSED: version 2 against the baselines and version 1. The comparison with" in words
    assert "void: version 1 (the champion) cannot predict the held-out conditions" in words
    assert reason in words
    assert 'promote without this comparison: --force --why "..."' in words
    (row,) = [line for line in said.splitlines() if "mse_top50" in line and " champion " in line]
    assert row.split()[-4:] == ["-", "-", "-", "VOID"]
    history = json.loads(contest.ask("history", "--json"))
    assert history[0]["decision"] == "refused"
    assert reason in history[0]["why"]
    assert "healthy" in contest.ask("doctor")


@pytest.mark.slow
def test_a_champion_that_has_seen_the_cells_still_leaves_a_table(
    contest: Contest, cells: AnnData, store: object
) -> None:
    knows_all = replace(
        contestant(contest.folder, cells, 0), seen=np.sort(cells.obs["cfmvc_cell_id"].to_numpy())
    )
    force(contest, contest.register(knows_all))
    contest.register(contestant(contest.folder, cells, 1))
    words = " ".join(contest.ask("promote", expect=3).split())
    assert "void: version 1 (the champion) was trained on 32 of the cells" in words
    assert "against the baselines and version 1. The comparison with the champion is void" in words
    run = runs_of(store)["promote"]  # type: ignore[arg-type]
    kept = Path(run.info.artifact_uri.removeprefix("file://")) / "gate"
    assert json.loads((kept / "verdict.json").read_text())["void"].startswith("void: version 1")
    assert "champion version 1 not compared" in (kept / "report.html").read_text()


def test_a_candidate_that_cannot_answer_is_refused_and_written_down(
    contest: Contest, cells: AnnData
) -> None:
    contest.register(contestant(contest.folder, cells, 0, vocabulary=OTHER_TYPES))
    said = contest.ask("promote", expect=3)
    assert "void: version 1 (the candidate) cannot predict the held-out conditions" in said
    assert "unknown cell type 'q'" in said
    assert json.loads(contest.ask("history", "--json"))[0]["decision"] == "refused"


def test_a_fault_of_params_yaml_is_told_before_any_work(
    contest: Contest, cells: AnnData, store: Store
) -> None:
    contest.register(contestant(contest.folder, cells, 0))
    file = contest.folder / "params.yaml"
    file.write_text(file.read_text().replace("mse_top50", "mse_top5"))
    said = contest.ask("promote", expect=2)
    assert "gate: Value error, no metric 'mse_top5' (did you mean 'mse_top50'?)" in said
    assert "generating" not in said
    assert "promote" not in runs_of(store)


def own_files(contest: Contest, version: int, store: Store) -> Path:
    """Return the bundle's folder in the store."""
    model_id = store.client.get_model_version(contest.name, str(version)).tags["cfmvc.model_id"]
    location = store.client.get_logged_model(model_id).artifact_location
    return Path(location.removeprefix("file://")) / "artifacts" / "bundle"


@pytest.mark.parametrize("file", ["seen_cells.npy", "weights.safetensors"])
def test_a_candidate_whose_files_were_edited_is_not_judged(
    contest: Contest, cells: AnnData, store: Store, file: str
) -> None:
    knows_all = replace(
        contestant(contest.folder, cells, 0), seen=np.sort(cells.obs["cfmvc_cell_id"].to_numpy())
    )
    version = contest.register(knows_all)
    edited = own_files(contest, version, store) / file
    if file == "seen_cells.npy":
        np.save(edited, contestant(contest.folder, cells, 0).seen)
    else:
        flip_a_byte(edited)
    said = contest.ask("promote", expect=3)
    assert "void: version 1 (the candidate) is not what was registered" in said
    assert "`cfmvc registry verify 1` says more; do not use it" in said
    assert "generating" not in said
    assert json.loads(contest.ask("history", "--json"))[0]["decision"] == "refused"


def test_a_version_that_does_not_say_what_was_registered_is_not_judged(
    contest: Contest, cells: AnnData, store: Store
) -> None:
    version = contest.register(contestant(contest.folder, cells, 0))
    store.client.delete_model_version_tag(contest.name, str(version), "cfmvc.bundle_sha256")
    assert "its tag cfmvc.bundle_sha256 says nothing" in contest.ask("promote", expect=3)


@pytest.mark.slow
def test_a_champion_whose_files_were_edited_makes_the_comparison_void(
    contest: Contest, cells: AnnData, store: Store
) -> None:
    champion = contest.register(contestant(contest.folder, cells, 0))
    force(contest, champion)
    flip_a_byte(own_files(contest, champion, store) / "weights.safetensors")
    contest.register(contestant(contest.folder, cells, 1))
    words = " ".join(contest.ask("promote", expect=3).split())
    assert "void: version 1 (the champion) is not what was registered" in words
    assert "against the baselines and version 1. The comparison with the champion is void" in words


@pytest.mark.slow
def test_genes_in_another_order_are_the_same_genes(contest: Contest, cells: AnnData) -> None:
    turned = [f"gene-{number}" for number in reversed(range(N_GENES))]
    force(contest, contest.register(contestant(contest.folder, cells, 0, genes=turned)))
    contest.register(contestant(contest.folder, cells, 1))
    said = contest.ask("promote", expect=3)
    assert "VOID" not in said
    assert "energy_distance ↓  champion" in said


@pytest.mark.slow
def test_a_champion_learns_of_new_perturbations_by_their_embeddings(workspace: Path) -> None:
    cells = contest_cells(VECTORS)
    contest = new_contest(workspace, cells)
    before = contestant(workspace, cells, 0, vocabulary=OTHER_PERTURBATIONS)
    champion = with_vectors(before, VECTORS.rename({"b": "z"}) - 0.0)
    force(contest, contest.register(champion))
    contest.register(with_vectors(contestant(workspace, cells, 1), VECTORS))
    said = contest.ask("promote", expect=3)
    assert "VOID" not in said
    assert "energy_distance ↓  champion" in said


def test_vectors_in_other_units_tell_it_nothing(workspace: Path) -> None:
    cells = contest_cells(2.0 * VECTORS)
    before = contestant(workspace, cells, 0, vocabulary=OTHER_PERTURBATIONS)
    with pytest.raises(DataError, match="not those of its training"):
        told_of_embeddings(with_vectors(before, VECTORS.rename({"b": "z"})), cells)
    longer = with_vectors(before, VECTORS.rename({"b": "z"}).assign(third=0.0))
    with pytest.raises(DataError, match="vectors of 2 numbers, those of the training have 3"):
        told_of_embeddings(longer, cells)


def test_who_knows_all_labels_is_left_as_it_is(workspace: Path) -> None:
    cells = contest_cells(2.0 * VECTORS)
    known = with_vectors(contestant(workspace, cells, 0), VECTORS)
    assert told_of_embeddings(known, cells) is known
    without = contestant(workspace, cells, 0, vocabulary=OTHER_PERTURBATIONS)
    assert told_of_embeddings(without, cells) is without
    assert VOCABULARY.perturbations == known.vocabulary.perturbations
    assert torch.isfinite(known.model.context.embedding).all()
