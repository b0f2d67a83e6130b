"""Of a perturbation that no cell was given its vector tells more than nothing, wherever zero is."""

import numpy as np
import pytest

from benchmarks.held_out_shifts import squares
from benchmarks.unseen import VECTORS, drawn, held_out, learnt, vectors
from cfmvc.data.embeddings import EMBEDDINGS


@pytest.mark.parametrize("kind", VECTORS)
def test_is_better_than_nothing_and_than_from_the_middle_alone(kind: str) -> None:
    cells, sums = drawn(5, seed=0), np.zeros(3)
    cells.uns[EMBEDDINGS] = vectors(cells.uns[EMBEDDINGS], kind, seed=0)
    for fold in held_out(cells):
        sums += squares(fold, learnt)
    assert sums[0] < sums[1:].min()
