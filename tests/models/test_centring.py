"""What a batch has of its own is subtracted, and nothing else."""

import numpy as np
import pytest
import torch

from cfmvc.models import EncoderVAE
from cfmvc.models.centring import BatchCentring

N_BATCH, N_TYPES, DIM = 3, 2, 4


def cells(n: int = 600, seed: int = 0) -> dict[str, torch.Tensor]:
    """Noise, in uneven conditions; vector 0 is the control."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randint(N_BATCH, (n,), generator=generator)
    # More of some perturbations in some batches: means of batches differ without any offset.
    vector = (torch.rand(n, generator=generator) * (2.0 + batch)).long().clamp_max(2)
    return {
        "z_int": torch.randn(n, DIM, generator=generator),
        "vector": vector,
        "is_control": vector == 0,
        "batch_idx": batch,
        "ct_idx": torch.randint(N_TYPES, (n,), generator=generator),
    }


def settled(seen: dict[str, torch.Tensor]) -> tuple[BatchCentring, torch.Tensor]:
    centring = BatchCentring(N_BATCH, N_TYPES, DIM)
    centring.settle(**seen)
    return centring, centring(seen["z_int"], seen["batch_idx"], seen["ct_idx"])


def effects(seen: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return what perturbation and cell type do, and no batch."""
    own = torch.tensor([0.0, 10.0, -4.0])[seen["vector"]] + 3.0 * seen["ct_idx"]
    return own[:, None].expand(-1, DIM).clone()


def test_an_offset_of_a_batch_is_found_and_effects_stay() -> None:
    seen = cells()
    seen["z_int"] = effects(seen)
    there = torch.tensor([-5.0, 1.0, 4.0])[seen["batch_idx"]]
    given = {**seen, "z_int": seen["z_int"] + there[:, None]}
    _, centred = settled(given)
    torch.testing.assert_close(centred, seen["z_int"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("ratio", "n_kinds"), [(1, 100), (8, 100), (6, 60), (16, 5)])
def test_nothing_is_added_to_all_batches_of_a_type(ratio: int, n_kinds: int, seed: int) -> None:
    """Rounding hides the constant that batches and perturbations could both take: it is 0."""
    generator = torch.Generator().manual_seed(seed)
    n = 20_000
    batch = (torch.rand(n, generator=generator) < 1 / (1 + ratio)).long()
    vector = torch.randint(n_kinds, (n,), generator=generator)
    centring = BatchCentring(2, 1, DIM)
    centring.settle(
        z_int=torch.randn(n, DIM, generator=generator) + 3.0 * batch[:, None],
        vector=vector,
        is_control=vector == 0,
        batch_idx=batch,
        ct_idx=torch.zeros(n, dtype=torch.int64),
    )
    between = centring.offset[0, 1] - centring.offset[0, 0]
    torch.testing.assert_close(between, torch.full((DIM,), 3.0), atol=0.2, rtol=0)
    assert centring.offset[0].sum(0).abs().max() < 1e-4


def test_it_is_least_squares_with_controls_as_heavy_as_the_rest() -> None:
    seen = cells()
    centring, _ = settled(seen)
    for cell_type in range(N_TYPES):
        here = (seen["ct_idx"] == cell_type).numpy()
        z, vector, batch = (seen[k].numpy()[here] for k in ("z_int", "vector", "batch_idx"))
        is_control = vector == 0
        weight = np.where(is_control, (~is_control).sum() / is_control.sum(), 1.0) ** 0.5
        design = np.hstack([np.eye(3)[vector], np.eye(N_BATCH)[batch]])
        found = np.linalg.lstsq(design * weight[:, None], z * weight[:, None], rcond=None)[0]
        offset = found[3:] - found[3:].mean(axis=0)
        np.testing.assert_allclose(centring.offset[cell_type].numpy(), offset, atol=1e-5)


def test_settling_again_changes_nothing() -> None:
    seen = cells()
    centring, centred = settled(seen)
    before = centring.offset.clone()
    centring.settle(**{**seen, "z_int": centred})
    torch.testing.assert_close(centring.offset, before, atol=1e-6, rtol=0)


def test_a_batch_that_shares_no_condition_takes_its_offset_in_other_types() -> None:
    seen = cells()
    seen["vector"][(seen["batch_idx"] == 1) & (seen["ct_idx"] == 1)] = (
        3  # nowhere else in this type
    )
    seen["is_control"] = seen["vector"] == 0
    seen["z_int"] = seen["z_int"] + 4.0 * seen["batch_idx"][:, None]
    seen["z_int"][3] = float("nan")
    centring, _ = settled(seen)
    torch.testing.assert_close(centring.offset[1, 1], centring.offset[0, 1])
    assert torch.isfinite(centring.offset).all()


def test_cells_of_one_kind_are_centred_as_well() -> None:
    seen = cells()
    seen["vector"][:] = 0
    seen["is_control"][:] = True
    _, centred = settled(seen)
    for cell_type in range(N_TYPES):
        of_type = seen["ct_idx"] == cell_type
        means = [centred[of_type & (seen["batch_idx"] == b)].mean(0) for b in range(N_BATCH)]
        torch.testing.assert_close(
            torch.stack(means), torch.stack(means[:1] * N_BATCH), atol=1e-5, rtol=0
        )


def test_a_new_encoder_centres_nothing() -> None:
    encoder = EncoderVAE(5, 2, 2, 3, 2, 8)
    assert not encoder.centring.offset.any()
