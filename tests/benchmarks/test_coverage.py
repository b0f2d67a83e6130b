"""Intervals of the mean response hold about what they promise on a real data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.coverage import covered
from benchmarks.reference_folds import kang_folds


def test_most_genes_of_a_cell_type_that_was_held_out_are_in_their_intervals(
    published: Callable[[str], Path],
) -> None:
    fold = next(kang_folds(published("kang_pbmc_ifnb").parent))
    shares = [float(str(row["all"])) for row in covered(fold)]
    assert len(shares) == 2  # donors
    assert 0.8 < np.mean(shares) < 0.97
