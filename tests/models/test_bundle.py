"""A model on disk: whole, repeatable, and without pickle."""

from pathlib import Path

import pytest
import torch

from cfmvc.data import Vocabulary
from cfmvc.errors import CfmvcError
from cfmvc.models import Bundle, CFMVCModel, load_bundle, save_bundle


@pytest.fixture
def bundle(model: CFMVCModel) -> Bundle:
    vocabulary = Vocabulary(("control", "a", "b", "c", "d"), ("x", "y", "z"), tuple("pqrs"))
    return Bundle(model.eval(), vocabulary, [f"g{i}" for i in range(30)], 100.0, {"vae": {}})


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


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CfmvcError, match="not a cfmvc model"):
        load_bundle(tmp_path)
