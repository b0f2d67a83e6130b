"""Batches that lie over each other, and coordinates in other units."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cfmvc.errors import DataError
from cfmvc.models import Bundle
from cfmvc.stages import perturb_region
from cfmvc.stages.place import note_on_batches, of_batches

REGION = "10,60,20,90"


def notes(bundle: Bundle, cells: AnnData, region: str = REGION, **options) -> list[str]:
    return perturb_region(bundle, cells, "A", region, seed=0, n_steps=2, **options).notes


def overlapping(told: list[str]) -> list[str]:
    return [note for note in told if "whose coordinates overlap" in note]


def test_coordinates_in_a_larger_unit_are_told(bundle: Bundle, tissue: AnnData) -> None:
    def small(told: list[str]) -> list[str]:
        return [note for note in told if "less than a hundredth of the places" in note]

    assert not small(notes(bundle, tissue))
    # a small region is none of a small tissue
    x, y = tissue.obsm["spatial"][(tissue.obs["perturbation"] == "control").to_numpy()][0]
    assert not small(notes(bundle, tissue, f"circle:{x},{y},0.1"))
    tissue.obsm["spatial"] = tissue.obsm["spatial"] / 1000 + np.float32(50.0)  # as from the middle
    (note,) = small(notes(bundle, tissue, "0,100,0,100"))
    assert note.startswith("all cells lie within x 50 to 50.1, y 50 to 50.1, less than")
    assert note.endswith("): are the units the same?")


def test_batches_that_share_coordinates_are_named(bundle: Bundle, tissue: AnnData) -> None:
    (note,) = overlapping(notes(bundle, tissue))
    assert "cells of 2 batches whose coordinates overlap: 'b1', 'b2'; " in note
    assert "--batch NAME" in note
    # who names batches, or annotated cells, knows what is taken
    assert not overlapping(notes(bundle, tissue, batches=["b1"]))
    assert not overlapping(notes(bundle, tissue, batches=["b1", "b2"]))
    assert not overlapping(notes(bundle, tissue, "obs:cell_type=T"))


def test_sections_beside_each_other_are_none(bundle: Bundle, tissue: AnnData) -> None:
    is_right = (tissue.obs["batch"] == "b2").to_numpy()
    tissue.obsm["spatial"] = tissue.obsm["spatial"] * 0.4 + np.outer(is_right, [50.0, 0.0])
    told = notes(bundle, tissue, "0,100,0,100")
    assert not overlapping(told)


@pytest.mark.parametrize("n_coordinates", [2, 3])
def test_of_three_coordinates_the_third_tells_sections_apart(n_coordinates: int) -> None:
    places = np.random.default_rng(0).uniform(size=(60, n_coordinates))
    labels = pd.Series(np.repeat(["a", "b", "c"], 20))
    places[40:, 0] += 10.0
    (told,) = note_on_batches(labels, places)
    assert "2 batches whose coordinates overlap: 'a', 'b'" in told
    if n_coordinates == 3:
        places[:20, 2] = 5.0
        assert note_on_batches(labels, places) == []
    assert note_on_batches(labels[:20], places[:20]) == []


def test_a_region_of_one_batch(bundle: Bundle, tissue: AnnData) -> None:
    options = {"seed": 0, "n_steps": 2}
    everywhere = perturb_region(bundle, tissue, "A", REGION, **options)
    one = perturb_region(bundle, tissue, "A", REGION, batches=["b1"], **options)
    is_mine = (tissue.obs["batch"] == "b1").to_numpy()
    for column in ("in_region", "change"):
        assert not one.cells.obs[column].to_numpy()[~is_mine].any()
    np.testing.assert_array_equal(one.is_changed, everywhere.is_changed & is_mine)
    in_both = everywhere.cells.obs["in_region"].to_numpy() & is_mine
    np.testing.assert_array_equal(one.cells.obs["in_region"], in_both)
    assert list(one.cells.uns["perturb_region"]["batches"]) == ["b1"]


def test_a_batch_without_cells_is_named(bundle: Bundle, tissue: AnnData) -> None:
    with pytest.raises(DataError, match="no cell is of batch 'b3'; batches: 'b1', 'b2'"):
        notes(bundle, tissue, batches=["b3"])
    is_mine = (tissue.obs["batch"] == "b1").to_numpy()
    tissue.obsm["spatial"][is_mine] += 500.0
    with pytest.raises(DataError, match=f"none of {is_mine.sum()} cells is in it; .* x 50"):
        notes(bundle, tissue, batches=["b1"])
    assert of_batches(tissue.obs["batch"], None).all()
