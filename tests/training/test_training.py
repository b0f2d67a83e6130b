"""The loop learns what it should, the same way twice; the doors lead to it."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data import SingleCellDataset, collate_fn_cfm
from cfmvc.errors import DataError
from cfmvc.models import Bundle, CFMVCModel, save_bundle
from cfmvc.models.reference import encode_cells
from cfmvc.stages import TrainingCells, fit_flow, fit_joint, fit_vae
from cfmvc.stages.flow import expect_trainable
from cfmvc.training import train_flow_stage, train_vae_stage
from cfmvc.training.averages import AveragedWeights
from cfmvc.training.config import FlowConfig, JointConfig, VaeConfig
from cfmvc.training.history import History
from cfmvc.training.loop import train
from cfmvc.training.objectives import VaeObjective
from cfmvc.training.sources import LatentSource, TableSource
from tests.training.conftest import LOOP, small_adata

CPU = torch.device("cpu")


def loader(n_cells: int = 120) -> DataLoader:
    dataset = SingleCellDataset(small_adata(n_cells, 12))
    generator = torch.Generator().manual_seed(0)
    return DataLoader(dataset, 16, shuffle=True, collate_fn=collate_fn_cfm, generator=generator)


def model_for(data: DataLoader, **options: Any) -> CFMVCModel:
    torch.manual_seed(0)
    sizes = (data.dataset.n_genes, data.dataset.n_batch, data.dataset.n_ct, data.dataset.n_perts)
    return CFMVCModel(*sizes, 4, 2, 16, 8, 16, 4, **options)


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def unchanged(module: torch.nn.Module, before: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))


def test_a_dataset_without_its_control_is_refused() -> None:
    with pytest.raises(DataError, match=r"no cell is labelled 'contrl', .*did you mean 'control'"):
        SingleCellDataset(small_adata(10, 12), control="contrl")


def test_dataset_items_and_batches_have_the_users_keys() -> None:
    dataset = SingleCellDataset(small_adata(10, 12), gene_key="counts")
    assert set(dataset[0]) == {"x", "p", "batch", "cell_type", "spatial"}
    batch = collate_fn_cfm([dataset[i] for i in range(4)])
    assert batch["x"].shape == (4, 12)
    assert batch["p"].shape == (4, 3)
    assert batch["spatial"] is None
    control = dataset.vocabulary.is_control(small_adata(10, 12).obs["perturbation"])
    p = torch.stack([dataset[i]["p"] for i in range(10)])
    assert torch.equal(p.any(1), ~torch.from_numpy(control))
    assert (p[:, 0] == 0).all()


def test_vae_door_learns_and_reports() -> None:
    data = loader()
    model = model_for(data)
    history = train_vae_stage(model, data, data, n_epochs=5, device="cpu")
    assert len(history["train_loss"]) == len(history["val_loss"]) == 5
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert history["nan_step"] is None


@pytest.mark.parametrize("source", ["noise", "control"])
def test_flow_door_leaves_the_vae_alone(source: str) -> None:
    data = loader()
    model = model_for(data, source=source)
    train_vae_stage(model, data, n_epochs=2)
    before, flow_before = weights(model.encoder) + weights(model.decoder), weights(model.field)
    history = train_flow_stage(model, data, data, n_epochs=12, lambda_dist=0.1)
    assert np.mean(history["train_loss"][-3:]) < np.mean(history["train_loss"][:3])
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(model.encoder) + weights(model.decoder), before, strict=True)
    )
    assert not unchanged(model.field, flow_before)


def test_joint_door_reaches_the_encoder() -> None:
    data = loader()
    model = model_for(data)
    encoder = weights(model.encoder)
    history = train_flow_stage(model, data, n_epochs=1, freeze_vae=False)
    assert not unchanged(model.encoder, encoder)
    assert np.isfinite(history["train_loss"]).all()


def test_stages_give_the_same_bytes_twice(
    cells: TrainingCells, vae_config: VaeConfig, flow_config: FlowConfig, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        bundle, _ = fit_vae(cells, vae_config, CPU)
        bundle, _ = fit_flow(bundle, cells, flow_config, CPU)
        save_bundle(bundle, tmp_path / name)
        torch.rand(7)  # what others draw in between must not matter
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_flow_stage_keeps_the_vae_to_the_bit(
    cells: TrainingCells, vae_config: VaeConfig, flow_config: FlowConfig
) -> None:
    bundle, _ = fit_vae(cells, vae_config, CPU)
    before = weights(bundle.model.encoder) + weights(bundle.model.decoder)
    flowing, _ = fit_flow(bundle, cells, flow_config, CPU)
    after = weights(flowing.model.encoder) + weights(flowing.model.decoder)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("n_cells", "n_epochs"),
    [(64, 4000), (65, 2000), (1300, 191), (3200, 80), (10**6, 80)],
)
def test_few_cells_are_seen_more_often(vae_config: VaeConfig, n_cells: int, n_epochs: int) -> None:
    config = vae_config.model_copy(update={"n_epochs": 0, "cells_per_step": 64})
    found = config.for_cells(n_cells)
    assert found.n_epochs == n_epochs
    expected = config.patience * n_epochs / 80
    assert found.patience == pytest.approx(expected, abs=0.5), "the same share of them"
    assert vae_config.for_cells(n_cells) == vae_config, "a number that was given is the number"


def test_a_model_says_how_many_epochs_were_meant(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    config = vae_config.model_copy(update={"n_epochs": 0, "lr": 1e-12, "patience": 1})
    bundle, history = fit_vae(cells, config, CPU)
    assert bundle.settings["vae"]["n_epochs"] == 4000 // 8  # steps of 16 of 128 cells
    assert len(history.rows) < 20, "and patience ends it as ever"


@pytest.mark.parametrize("n_cells", [20, 200, 2000, 20_000])
def test_few_cells_are_not_given_up_while_beta_rises(n_cells: int) -> None:
    shipped = parse_section(VaeConfig, read_yaml(default_params_file())["vae"], "vae")
    config = shipped.for_cells(n_cells)
    assert config.patience * config.validate_every > config.kl_warmup * config.n_epochs


def test_joint_stage_changes_all_parts(
    cells: TrainingCells, vae_config: VaeConfig, flow_config: FlowConfig
) -> None:
    bundle, _ = fit_vae(cells, vae_config, CPU)
    bundle, _ = fit_flow(bundle, cells, flow_config, CPU)
    parts = [bundle.model.encoder, bundle.model.decoder, bundle.model.field]
    before = [weights(part) for part in parts]
    joint = JointConfig(**LOOP, beta=1.0, lambda_flow=1.0, tech_penalty=1.0)
    offset = bundle.model.encoder.centring.offset.clone()
    bundle, history = fit_joint(bundle, cells, joint, flow_config, CPU)
    # Weights were chosen with these latents, and others would reach the decoder.
    assert torch.equal(bundle.model.encoder.centring.offset, offset)
    assert not any(unchanged(part, old) for part, old in zip(parts, before, strict=True))
    assert np.isfinite(history.rows[-1]["val_loss"])


@pytest.mark.parametrize("weight", ["lambda_dist", "lambda_reg"])
def test_what_the_loss_of_the_flow_has_beside_counts_in_joint_as_well(
    weight: str, cells: TrainingCells, vae_config: VaeConfig, flow_config: FlowConfig
) -> None:
    joint = JointConfig(**{**LOOP, "n_epochs": 1}, beta=1.0, lambda_flow=1.0, tech_penalty=1.0)
    trained, _ = fit_vae(cells, vae_config, CPU)
    trained, _ = fit_flow(trained, cells, flow_config, CPU)
    losses = []
    for value in (0.0, 10.0):
        flow = flow_config.model_copy(update={weight: value})
        _, history = fit_joint(copy.deepcopy(trained), cells, joint, flow, CPU)
        losses.append(history.rows[0]["train_loss"])
    assert losses[1] > losses[0]


def test_looks_are_at_a_model_that_evaluates(
    cells: TrainingCells, vae_config: VaeConfig, flow_config: FlowConfig
) -> None:
    """All of it: a decoder with dropout gives other cells, and moves what nothing has perturbed."""
    seen: list[bool] = []

    def look(bundle: Bundle, epoch: int) -> dict[str, float]:
        seen.append(any(module.training for module in bundle.model.modules()))
        return {}

    bundle, _ = fit_vae(cells, vae_config, CPU, examine=look)
    fit_flow(bundle, cells, flow_config, CPU, examine=look)
    assert seen
    assert not any(seen)


def test_best_epoch_is_kept(cells: TrainingCells, vae_config: VaeConfig) -> None:
    # A rate that destroys what the first epochs learnt: the kept weights are those of the best.
    config = vae_config.model_copy(update={"lr": 1.0, "n_epochs": 6, "lr_warmup": 0.9})
    _, history = fit_vae(cells, config, CPU)
    losses = [row["val_loss"] for row in history.rows]
    assert history.best_val_loss == min(losses)
    assert history.best_epoch == int(np.argmin(losses)) + 1


def test_control_source_pairs_within_the_stratum(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    bundle, _ = fit_vae(cells, vae_config, CPU)
    model = bundle.model
    model.source = "control"
    everything = np.arange(len(cells.train))
    latents = encode_cells(model.encoder, [cells.train.cells(everything, CPU)])
    source = LatentSource(latents, model, 16, 0)
    assert source.rounds is not None
    controls = source.rounds.controls(0, np.arange(len(source.rows)))
    targets, sources = torch.from_numpy(source.rows), torch.from_numpy(controls)
    assert (latents.p[sources] == 0).all()
    assert latents.p[targets].any(1).all()
    for column in (latents.batch, latents.cell_type):
        assert torch.equal(column[targets], column[sources])


def test_control_source_without_controls_is_an_error(
    cells: TrainingCells, vae_config: VaeConfig, flow_config: FlowConfig
) -> None:
    flow_config = flow_config.model_copy(update={"source": "control"})
    bundle, _ = fit_vae(cells, vae_config, CPU)
    perturbed = (cells.train.conditions[cells.train.condition] != 0).any(1)
    without = TrainingCells(
        cells.train.subset(perturbed), cells.val, cells.vocabulary, cells.gene_names
    )
    with pytest.raises(DataError, match="no cells to learn from"):
        fit_flow(bundle, without, flow_config, CPU)
    joint = JointConfig(**LOOP, beta=1.0, lambda_flow=1.0, tech_penalty=1.0)
    with pytest.raises(DataError, match="no perturbed cell has a control cell of its own batch"):
        expect_trainable(flow_config, joint, without)
    expect_trainable(flow_config.model_copy(update={"source": "noise"}), joint, without)
    expect_trainable(flow_config, joint, cells)
    batch = np.where(perturbed, cells.train.batch, 1 + cells.train.batch.max())
    apart = replace(cells, train=replace(cells.train, batch=batch))
    with pytest.raises(DataError, match="give controls of the same batches"):
        expect_trainable(flow_config, joint, apart)


def test_averaged_weights_follow_and_give_way() -> None:
    weights = torch.zeros(1)
    averaged = AveragedWeights(weights, 0.9)
    for value in (1.0, 2.0, 3.0):
        weights.fill_(value)
        averaged.update(averaged.next_share)
        averaged.count()
    with averaged.applied():
        assert 0.0 < weights.item() < 3.0
    assert weights.item() == 3.0


def test_adversary_hides_the_perturbation_from_the_encoder(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    plain, _ = fit_vae(cells, vae_config, CPU)
    adversarial, history = fit_vae(cells, vae_config.model_copy(update={"lambda_adv": 5.0}), CPU)
    assert "train_adversary" in history.rows[0]
    assert not unchanged(adversarial.model.encoder, weights(plain.model.encoder))


@pytest.mark.parametrize("source", ["noise", "control"])
def test_after_the_doors_the_model_generates_cells_of_the_datas_size(source: str) -> None:
    data = loader()
    model = model_for(data, source=source)
    train_vae_stage(model, data, n_epochs=2)
    train_flow_stage(model, data, n_epochs=2)
    assert not any(module.training for module in model.modules())
    p, codes = torch.zeros(80, 3), torch.zeros(80, dtype=torch.int64)
    table = data.dataset.table
    is_control = (table.conditions[table.condition] == 0).all(1)
    real = table.library[is_control & (table.batch == 0) & (table.cell_type == 0)].mean()
    assert model.generate_expression(p, codes, codes).sum(1).mean().item() == pytest.approx(
        real, rel=0.25
    )


def test_one_cell_of_nan_is_vetoed_and_does_not_spread() -> None:
    data = loader()
    data.dataset.table.counts.data[0] = np.nan
    for source in ("noise", "control"):
        model = model_for(data, source=source)
        first = train_vae_stage(model, data, n_epochs=2)
        assert first["nan_step"] is not None
        history = train_flow_stage(model, data, data, n_epochs=2)
        assert np.isfinite(history["train_loss"]).all()
        assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_validation_of_nan_is_told_and_summarised_as_json(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    """It vetoes no update, and tries nobody's patience."""
    cells.val.counts.data[0] = np.nan
    _, history = fit_vae(cells, vae_config.model_copy(update={"patience": 1}), CPU)
    assert {event.place for event in history.events} == {"validation: input"}
    assert len(history.rows) == vae_config.n_epochs
    summary = history.summary()
    assert (summary["nan_steps"], summary["first_nan_step"]) == (0, None)
    json.dumps(summary, allow_nan=False)


def test_of_a_stage_that_nothing_validates_the_last_epoch_counts() -> None:
    """Also behind one whose best epoch is known."""
    rows = [{"epoch": epoch, "step": 4 * epoch, "train_loss": 1.0 / epoch} for epoch in (1, 2, 3)]
    first, then = History(rows, best_epoch=2, best_val_loss=0.5), History(rows[:2], nan_step=1)
    whole = first.followed_by(then)
    assert [row["epoch"] for row in whole.rows] == [1, 2, 3, 4, 5]
    summary = whole.summary()
    assert (summary["best_epoch"], summary["train_loss"]) == (0, 0.5)
    assert summary["first_nan_step"] == 12 + 1
    validated = first.followed_by(History(rows[:2], best_epoch=1, best_val_loss=0.25)).summary()
    assert (validated["best_epoch"], validated["train_loss"]) == (4, 1.0)


def test_a_loader_of_no_cells_validates_nothing() -> None:
    data = loader()
    empty = DataLoader(Subset(data.dataset, []), batch_size=8, collate_fn=collate_fn_cfm)
    model = model_for(data)
    assert train_vae_stage(model, data, empty, n_epochs=1)["val_loss"] == []
    for freeze in (True, False):
        history = train_flow_stage(model, data, empty, n_epochs=1, freeze_vae=freeze)
        assert history["val_loss"] == []


def test_cells_that_are_not_finite_are_no_reference_to_generate_from(
    cells: TrainingCells, vae_config: VaeConfig, flow_config: FlowConfig
) -> None:
    cells.train.counts.data[0] = np.nan
    bundle, _ = fit_vae(cells, vae_config, CPU)
    bundle, _ = fit_flow(bundle, cells, flow_config, CPU)
    reference = bundle.model.reference
    assert reference is not None
    assert bool(reference.is_finite.all())
    assert len(reference) == len(cells.train) - 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bool])
def test_perturbation_vectors_of_any_type_are_understood(dtype: torch.dtype) -> None:
    model = CFMVCModel(12, 2, 2, 3, 4, 2, 16, 8, 16, 4).eval()
    p = torch.tensor([[0, 1, 0]] * 5).to(dtype)
    codes = torch.zeros(5, dtype=torch.int64)
    x = torch.ones(5, 12, dtype=torch.float64)
    _, z_int, _ = model.vae_forward(x, codes, codes)
    assert torch.isfinite(model.flow_step(z_int.double(), p, codes, codes)[0])
    assert model.generate_expression(p, codes, codes).shape == (5, 12)


def test_large_gradients_are_looked_for_every_interval_across_epochs(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    bundle, _ = fit_vae(cells, vae_config.model_copy(update={"n_epochs": 1}), CPU)

    class Loud(VaeObjective):
        def __call__(self, cells: Any) -> Any:
            loss = super().__call__(cells)
            return replace(loss, total=1e6 * loss.total)

    config = vae_config.model_copy(update={"nan_check_interval": 10})
    source = TableSource(cells.train, 32, 0, CPU)  # 4 steps an epoch
    assert source.n_steps == 4
    config = config.model_copy(update={"n_epochs": 8})
    history = train("train_vae", Loud(bundle.model, 1.0), source, None, config, CPU)
    assert [event.step for event in history.events] == [9, 19, 29]
