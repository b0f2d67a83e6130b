"""The duel as a page."""

from collections.abc import Sequence
from typing import Any

from benchmarks.cellflow.duel import JUDGED, METHODS, SHOWN, Duel
from benchmarks.cellflow.side import Training
from cfmvc.evaluation.metrics import heading, shown

_HEAD = """\
# The model against cellflow-tools: {data}, a cell type held out

Written by `python -m benchmarks.cellflow --data DIR`; do not edit. {date}, commit {commit}.

{machine}

Both sides see the same cells of the same {n_folds} folds (those of `cfmvc benchmark --task
{task}`), {n_seeds}, and are scored by the same functions on log-normalised
expression; figures of a fold are means over its conditions, then seeds. Ours is trained with
params.yaml. {versions}.
CellFlow: `otfm` on {pca} principal components of the training cells,
{iterations} iterations of {cells} cells, Adam {lr:g}, layers of {width} ({decoder} in the decoder;
the shipped 2,048 and 4,096 with 20 accumulated steps at 5e-5 are meant for a GPU and many more
iterations), a one-hot perturbation, pairs within strata (`split_covariates`), no label of the cell
type. It carries the held-out stratum's real controls over; the PCA is inverted, nothing is clipped.
Of its seeds, the weights differ alone: its trainer always draws the same batches. Its training took
{seconds:.0f} s a fold, beside other work.
"""


def page(
    duel: Duel,
    training: Training,
    told: Sequence[dict[str, Any]],
    machine: dict[str, Any],
    when: dict[str, Any],
) -> str:
    """Return the page as Markdown.

    Parameters
    ----------
    duel
        Both sides.
    training
        How CellFlow was trained.
    told
        What each of its trainings said.
    machine, when
        From ``benchmarks.engine.machine``.
    """
    return "\n".join([_head(duel, training, told, machine, when), *tables(duel)]) + "\n"


def tables(duel: Duel) -> list[str]:
    """Return the verdict, the means and the folds, as lines of Markdown."""
    return [*_verdict(duel), "", *_means(duel), "", *_folds(duel)]


def _verdict(duel: Duel) -> list[str]:
    n, lines = len(duel.summary.folds), ["| metric | better than CellFlow in | bar: 4 of 5 |"]
    lines.append("|---|---|---|")
    for metric in JUDGED:
        lost = [fold for fold in duel.summary.folds if fold not in duel.won[metric]]
        but = f" (not: {', '.join(lost)})" if lost else ""
        met = "met" if duel.is_met(metric) else "MISSED"
        lines.append(f"| {heading(metric)} | {len(duel.won[metric])} of {n} folds{but} | {met} |")
    return lines


def _means(duel: Duel) -> list[str]:
    lines = _header("mean over folds (smallest and largest seed)")
    for method in METHODS:
        cells = []
        for metric in SHOWN:
            text = f"{duel.means.loc[method, metric]:.3f}"
            if method in duel.extremes and len(duel.summary.seeds) > 1:
                low, high = (some[metric] for some in duel.extremes[method])
                text += f" ({low:.3f} to {high:.3f})"
            cells.append(text)
        lines.append(_row(shown(method), cells))
    return lines


def _folds(duel: Duel) -> list[str]:
    lines = []
    for fold in duel.summary.folds:
        lines += ([""] if lines else []) + _header(fold)
        for method in METHODS:
            row = duel.by_fold.loc[(fold, method)]
            better = {m for m in JUDGED if duel.leader(fold, m) == method}
            cells = [f"**{row[m]:.3f}**" if m in better else f"{row[m]:.3f}" for m in SHOWN]
            lines.append(_row(shown(method), cells))
    return lines


def _header(first: str) -> list[str]:
    return [_row(first, [heading(metric) for metric in SHOWN]), "|---" + "|---:" * len(SHOWN) + "|"]


def _row(first: str, cells: Sequence[str]) -> str:
    return f"| {' | '.join([first, *cells])} |"


def _head(
    duel: Duel,
    training: Training,
    told: Sequence[dict[str, Any]],
    machine: dict[str, Any],
    when: dict[str, Any],
) -> str:
    seeds = duel.summary.seeds
    facts = {**machine, "packages": ", ".join(f"{k} {v}" for k, v in machine["packages"].items())}
    versions = sorted({", ".join(f"{k} {v}" for k, v in one["versions"].items()) for one in told})
    return _HEAD.format(
        data=duel.summary.data,
        task=duel.summary.task,
        date=when["date"],
        commit=when["commit"],
        machine="\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items())]),
        n_folds=len(duel.summary.folds),
        n_seeds=f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}",
        versions="; ".join(versions),
        pca=training.n_components,
        iterations=training.n_iterations,
        cells=training.cells_per_step,
        lr=training.lr,
        width=training.width,
        decoder=2 * training.width,
        seconds=sum(one["train_seconds"] for one in told) / len(told),
    )
