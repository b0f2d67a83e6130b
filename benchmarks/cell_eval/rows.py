"""The comparison, a line a pair of metrics."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.cell_eval.sides import Array, Sides
from benchmarks.cell_eval.theirs import RANKS, de_table, significant, theirs
from cfmvc.evaluation.shifts import direction, mean_squared_error

OURS_OF_RANK = {
    "l1": "discrimination",
    "l2": "discrimination_l2",
    "cosine": "discrimination_cosine",
}


@dataclass(frozen=True)
class Row:
    """One of our metrics beside one of theirs, by perturbation.

    Parameters
    ----------
    ours, theirs
        What is compared, in words.
    our_values, their_values
        Index: perturbations.
    is_same
        Whether both define the same thing.
    remark
        What was done to theirs to make it so, or what keeps them apart.
    """

    ours: str
    theirs: str
    our_values: pd.Series
    their_values: pd.Series
    is_same: bool
    remark: str = ""

    @property
    def largest_difference(self) -> float:
        """Over the perturbations for which ours is defined."""
        return float((self.our_values - self.their_values).abs().max())


def exact_rows(sides: Sides) -> list[Row]:
    """Compare what defines the same thing once both are given the same."""
    return [*_errors(sides), *_top_errors(sides), *_ranks(sides), *_genes(sides)]


def _errors(sides: Sides) -> list[Row]:
    found = theirs(sides, ["pearson_delta", "mae_delta", "mse_delta"])
    squared = pd.Series(
        {p: mean_squared_error(c.predicted_delta, c.true_delta) for p, c in sides.cases.items()}
    )
    return [
        *(
            Row(f"`{name}`", f"`{name}`", sides.ours(name), found[name], True)
            for name in ("pearson_delta", "mae_delta")
        ),
        Row("squared error, all genes", "`mse_delta`", squared, found["mse_delta"], True),
    ]


def _top_errors(sides: Sides) -> list[Row]:
    parts = [
        theirs(sides, ["pearson_delta", "mse_delta"], genes=np.sort(case.truth.top)).loc[[name]]
        for name, case in sides.cases.items()
    ]
    found = pd.concat(parts)
    return [
        Row(f"`{name}_top50`", f"`{other}`", sides.ours(f"{name}_top50"), found[other], True, how)
        for name, other in (("pearson_delta", "pearson_delta"), ("mse", "mse_delta"))
        for how in ("it is shown the condition's top genes alone",)
    ]


def _ranks(sides: Sides) -> list[Row]:
    n = len(sides.true)
    all_genes = theirs(sides, list(RANKS.values()), drop_target=False)
    return [
        Row(
            f"`{OURS_OF_RANK[name]}`",
            f"`{score}`",
            sides.ours(OURS_OF_RANK[name]),
            1.0 - (1.0 - all_genes[score]) * n / (n - 1),
            True,
            "converted; `exclude_target_gene=False`",
        )
        for name, score in RANKS.items()
    ]


def _genes(sides: Sides) -> list[Row]:
    """Give it our test's results: what is left is how genes are counted."""
    (k,) = {len(case.truth.top) for case in sides.cases.values()}
    cases = sides.cases

    def every(perturbation: str) -> NDArray[np.bool_]:
        return np.ones(len(sides.genes), dtype=bool)

    def true_top(perturbation: str) -> NDArray[np.bool_]:
        return np.isin(np.arange(len(sides.genes)), cases[perturbation].truth.top)

    def predicted_top(perturbation: str) -> NDArray[np.bool_]:
        return np.isin(np.arange(len(sides.genes)), cases[perturbation].predicted_top)

    def true_t(perturbation: str) -> Array:
        return sides.t(perturbation, "true")

    def predicted_t(perturbation: str) -> Array:
        return sides.t(perturbation, "predicted")

    def responds(perturbation: str) -> NDArray[np.bool_]:
        return cases[perturbation].truth.responds

    ranked = (de_table(sides, true_t, every), de_table(sides, predicted_t, every))
    overlap = theirs(sides, ["overlap_at_50"], tables=ranked, k=k)
    turned = (
        de_table(sides, predicted_t, predicted_top),
        de_table(sides, true_t, responds),
    )
    recall = theirs(sides, ["de_sig_genes_recall"], tables=turned)
    shifts = (
        de_table(sides, lambda p: cases[p].true_delta, true_top),
        de_table(sides, lambda p: cases[p].predicted_delta, every),
    )
    signs = theirs(sides, ["de_direction_match"], tables=shifts)
    return [
        Row(f"`{ours}`", f"`{table.columns[0]}`", sides.ours(ours), table.iloc[:, 0], True, how)
        for ours, table, how in (
            ("de_overlap_top50", overlap, "our t as its DE tables"),
            (
                "de_precision_top50",
                recall,
                "our tests as its DE tables, sides swapped: which of the predicted respond",
            ),
            ("direction_top50", signs, "our top genes as its significant ones"),
        )
    ]


def usual_rows(sides: Sides) -> list[Row]:
    """Take it as it comes."""
    others = {
        "discrimination": ("discrimination_score_l1", "of n, not n - 1; target gene left out"),
        "de_overlap_top50": ("overlap_at_50", "Wilcoxon, fold change, significant genes only"),
        "de_precision_top50": ("precision_at_50", "the same, and true genes cut to as many"),
        "direction_top50": ("de_direction_match", "all genes significant by Wilcoxon"),
        "energy_distance": ("pearson_edistance", "one correlation over perturbations"),
    }
    found = theirs(sides, [name for name, _ in others.values()])
    signs = pd.Series({p: _direction(sides, p) for p in sides.cases})
    return [
        Row(
            "direction, genes that `pdex` finds",
            "`de_direction_match`",
            signs,
            found["de_direction_match"],
            True,
        ),
        *(
            Row(f"`{ours}`", f"`{name}`", sides.ours(ours), found[name], False, why)
            for ours, (name, why) in others.items()
        ),
    ]


def _direction(sides: Sides, perturbation: str) -> float:
    case, found = sides.cases[perturbation], significant(sides, perturbation)
    shifts = case.predicted_delta[found], case.true_delta[found]
    return direction(*shifts) if found.any() else float("nan")
