"""The registered model as a server holds it: in memory, asked by several at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from tests.registry.conftest import make_bundle


def test_answers_to_several_at_once_are_those_to_one_after_the_other(tmp_path: Path) -> None:
    """Draws come from generators of the process, which requests must not take from each other."""
    from cfmvc.registry.served_model import VirtualCells

    served, context = VirtualCells(), _context(make_bundle(tmp_path / "model", seed=0))
    served.load_context(context)
    asked = pd.DataFrame({"perturbation": ["a", "b"], "batch": "x", "cell_type": "p", "n_cells": 9})

    def answer(seed: int) -> pd.DataFrame:
        return served.predict(context, asked, {"seed": seed})

    alone = [answer(seed) for seed in range(12)]
    assert not alone[0].equals(alone[1])
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(answer, range(12)))
    for one, other in zip(alone, together, strict=True):
        pd.testing.assert_frame_equal(one, other)


def _context(bundle: Path) -> Any:
    return SimpleNamespace(artifacts={"bundle": str(bundle)})
