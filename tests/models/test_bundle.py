"""A model on disk: whole, repeatable, and without pickle."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cfmvc.data import Vocabulary
from cfmvc.errors import CfmvcError
from cfmvc.models import Bundle, CFMVCModel, load_bundle, save_bundle


@pytest.fixture
def bundle(model: CFMVCModel) -> Bundle:
    vocabulary = Vocabulary(("control", "a", "b", "c", "d"), ("x", "y", "z"), tuple("pqrs"))
    return Bundle(
        model.eval(), vocabulary, [f"g{i}" for i in range(30)], 100.0, {"vae": {}, "flow": {}}
    )


def test_round_trip_keeps_everything(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(bundle, tmp_path / "m")
    loaded = load_bundle(tmp_path / "m")
    assert loaded.vocabulary == bundle.vocabulary
    assert loaded.gene_names == bundle.gene_names
    assert loaded.model.source == bundle.model.source
    for name, value in bundle.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)


def test_same_model_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_bundle(bundle, tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_others_may_read_what_the_umask_lets_them(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_bundle(bundle, tmp_path / "m")
    allowed = (tmp_path / "plain").stat().st_mode
    assert {file.stat().st_mode for file in (tmp_path / "m").iterdir()} == {allowed}


def test_what_was_trained_by_hand_is_saved_whole(bundle: Bundle, tmp_path: Path) -> None:
    """The doors leave no settings, and nobody knows what they have trained."""
    bundle.settings.clear()
    save_bundle(bundle, tmp_path / "m")
    loaded = load_bundle(tmp_path / "m").model.state_dict()
    for name, value in bundle.model.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_before_the_flow_only_encoder_and_decoder_are_kept(bundle: Bundle, tmp_path: Path) -> None:
    del bundle.settings["flow"]
    save_bundle(bundle, tmp_path / "m")
    assert {
        name.partition(".")[0] for name in load_file(tmp_path / "m" / "weights.safetensors")
    } == {
        "encoder",
        "decoder",
    }
    loaded = load_bundle(tmp_path / "m")
    for name, value in bundle.model.encoder.state_dict().items():
        assert torch.equal(loaded.model.encoder.state_dict()[name], value)


def test_weights_of_another_version_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(bundle, tmp_path / "m")
    weights = load_file(tmp_path / "m" / "weights.safetensors")
    del weights["field.basis.weight"]
    save_file(weights, tmp_path / "m" / "weights.safetensors")
    with pytest.raises(
        CfmvcError, match=r"another version of cfmvc \(missing: 'field.basis.weight'"
    ):
        load_bundle(tmp_path / "m")


def test_a_list_of_cells_that_is_not_whole_is_named(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(replace(bundle, seen=np.zeros((40, 2), np.uint64)), tmp_path / "model")
    file = tmp_path / "model" / "seen_cells.npy"
    for n_bytes in (0, 60, len(file.read_bytes()) - 1):
        os.truncate(file, n_bytes)
        with pytest.raises(CfmvcError, match=r"seen_cells.npy: damaged .*copy the whole folder"):
            load_bundle(tmp_path / "model")


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CfmvcError, match="not a cfmvc model"):
        load_bundle(tmp_path)
