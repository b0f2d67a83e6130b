"""Two processes learn what one would have learnt, and each sees the draws of its own cells."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from cfmvc.shards import Shard, normal_like, of_step, shared_out, uniform_like
from cfmvc.training.config import VaeConfig
from tests.conftest import PROJECT
from tests.forked import ForkedModule
from tests.training.conftest import flow_config_from


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 8])
def test_shares_are_all_cells_once(n_ranks: int) -> None:
    shares = [Shard(rank, n_ranks).share(13) for rank in range(n_ranks)]
    rows = [row for share in shares for row in range(13)[share]]
    assert rows == list(range(13))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_of_fewer_cells_than_processes_each_takes_all_for_its_part() -> None:
    shards = [Shard(rank, 3) for rank in range(3)]
    assert [shard.share(2) for shard in shards] == [slice(0, 2)] * 3
    assert sum(shard.size(2) for shard in shards) == pytest.approx(2)


@pytest.mark.parametrize("drawn", [normal_like, uniform_like])
def test_shares_of_a_draw_are_the_draw_of_one_process(drawn: Any) -> None:
    torch.manual_seed(3)
    whole = drawn(torch.empty(7, 4))
    parts = []
    for rank in range(3):
        shard = Shard(rank, 3)
        torch.manual_seed(3)
        n_mine = len(range(7)[shard.share(7)])
        with shared_out(shard), of_step(7):
            parts.append(drawn(torch.empty(n_mine, 4)))
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(vae_config: VaeConfig, tmp_path: Path) -> None:
    """Of a VAE, in one part and in several, and of a flow from each source; and its vetoes."""
    changes = {"dropout": 0.2, "ema_decay": 0.9}
    vae = vae_config.model_copy(update={**changes, "lambda_adv": 0.1}).model_dump_json()
    flows = [
        flow_config_from(source).model_copy(update={**changes, "lambda_dist": 0.0})
        for source in ("control", "noise")
    ]
    found = {}
    for n_ranks in (1, 2):
        out = tmp_path / f"{n_ranks}.json"
        module, *words = ["tests.training.a_shared_training", str(out), vae]
        words += [flow.model_dump_json() for flow in flows]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if n_ranks > 1:
            words = ["--standalone", f"--nproc-per-node={n_ranks}", "-m", module, *words]
            module = "torch.distributed.run"
        process = ForkedModule(module, words, PROJECT, environment)
        assert process.wait(300) == 0, process.communicate()[0][-3000:]
        found[n_ranks] = json.loads(out.read_text())
        assert found[n_ranks]["n_ranks"] == n_ranks
    assert len(found[1]["rows"]) == 2 + len(flows)
    for one, two in zip(found[1]["rows"], found[2]["rows"], strict=True):
        for row, other in zip(one, two, strict=True):
            for name, value in row.items():
                if name.startswith(("train_", "val_", "grad_norm")):
                    assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert found[1]["events"]
    for event, other in zip(found[1]["events"], found[2]["events"], strict=True):
        for name in ("kind", "step", "place", "cells", "parameters", "loss_parts"):
            assert other[name] == event[name]
