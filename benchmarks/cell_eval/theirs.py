"""What `cell-eval` says of the same cells.

Its settings are given with every call: what is passed to it once stays in its registry for all
later evaluations of the process. An error ends the run; left alone, it drops the metric's column
and only logs it.
"""

from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory

import anndata as ad
import numpy as np
import pandas as pd
import polars as pl
from cell_eval import MetricsEvaluator
from cell_eval.metrics import metrics_registry
from numpy.typing import NDArray
from pdex import pdex

from benchmarks.cell_eval.sides import Array, Sides

CONTROL = "control"
RANKS = {name: f"discrimination_score_{name}" for name in ("l1", "l2", "cosine")}
Tables = tuple[pl.DataFrame, pl.DataFrame]


def theirs(
    sides: Sides,
    metrics: Sequence[str],
    *,
    drop_target: bool = True,
    genes: NDArray[np.int64] | None = None,
    tables: Tables | None = None,
    k: int = 50,
) -> pd.DataFrame:
    """Run ``cell-eval`` on the stratum, with the real controls on both sides.

    Parameters
    ----------
    sides
        The stratum.
    metrics
        Names of its metrics.
    drop_target
        Whether the gene that is called like the perturbation counts for nothing in the
        discrimination scores (its default).
    genes
        Numbers of the genes that it is shown; all by default.
    tables
        Differential expression, true and predicted, instead of what ``pdex`` finds.
    k
        Genes in ``overlap_at_50`` and ``precision_at_50``, where there are so many.

    Returns
    -------
    Index: perturbations. Columns: the metrics.
    """
    shown = np.arange(len(sides.genes)) if genes is None else genes
    is_wanted = set(metrics)
    needs_table = any(name.startswith(("overlap", "precision", "de_")) for name in metrics)
    settings = {rank: {"exclude_target_gene": drop_target} for rank in RANKS.values()}
    settings |= {f"{name}_at_50": {"k": k} for name in ("overlap", "precision")}
    real, predicted = tables or (None, None)
    with TemporaryDirectory() as folder:
        evaluator = MetricsEvaluator(
            adata_pred=_cells(sides, sides.predicted, shown),
            adata_real=_cells(sides, sides.true, shown),
            de_pred=predicted,
            de_real=real,
            control_pert=CONTROL,
            pert_col="perturbation",
            num_threads=1,
            outdir=f"{folder}/new",
            skip_de=not needs_table,
        )
        found, _ = evaluator.compute(
            profile="full",
            metric_configs=settings,
            skip_metrics=[m for m in metrics_registry.list_metrics() if m not in is_wanted],
            write_csv=False,
            break_on_error=True,
        )
    table = found.to_pandas().astype({"perturbation": str}).set_index("perturbation")
    # it leaves a perturbation out where it finds no gene to look at
    return table.reindex(index=list(sides.true), columns=list(metrics)).astype(np.float64)


def significant(sides: Sides, perturbation: str) -> NDArray[np.bool_]:
    """Return the genes that ``pdex`` finds in the true cells as ``cell-eval`` asks it, 5 % FDR."""
    one = {perturbation: sides.true[perturbation]}
    table = pdex(
        _cells(sides, one, np.arange(len(sides.genes))),
        groupby="perturbation",
        reference=CONTROL,
        is_log1p=True,
        threads=1,
        epsilon=0.0,
    )
    return (table["fdr"] < 0.05).to_numpy()


def de_table(
    sides: Sides,
    change: Callable[[str], Array],
    is_significant: Callable[[str], NDArray[np.bool_]],
) -> pl.DataFrame:
    """Return a table of differential expression as ``cell-eval`` reads it.

    Parameters
    ----------
    sides
        Gives perturbations and genes.
    change
        What stands in the place of the log fold change, by perturbation, shape ``(n_genes,)``.
    is_significant
        Which genes get a false discovery rate of 0 and not 1, by perturbation.
    """
    parts = []
    for perturbation in sides.true:
        rate = np.where(is_significant(perturbation), 0.0, 1.0)
        parts.append(
            pl.DataFrame(
                {
                    "target": [perturbation] * len(sides.genes),
                    "feature": sides.genes,
                    "log2_fold_change": change(perturbation),
                    "p_value": rate,
                    "fdr": rate,
                }
            )
        )
    return pl.concat(parts)


def _cells(sides: Sides, perturbed: dict[str, Array], shown: NDArray[np.int64]) -> ad.AnnData:
    populations = {CONTROL: sides.controls, **perturbed}
    labels = np.repeat(list(populations), [len(cells) for cells in populations.values()])
    return ad.AnnData(
        np.concatenate(list(populations.values()))[:, shown],
        obs=pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(len(labels))]),
        var=pd.DataFrame(index=[sides.genes[i] for i in shown]),
    )
