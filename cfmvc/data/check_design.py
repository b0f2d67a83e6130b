"""Faults of the experiment: small strata, strata without controls, confounding with batch."""

from collections.abc import Iterator

import pandas as pd

from cfmvc.data.config import DataConfig
from cfmvc.data.faults import Fault
from cfmvc.data.prepared import LEAST_CONTROLS

_MOST_NAMED = 6


def check_design(labels: pd.DataFrame, config: DataConfig) -> Iterator[Fault]:
    """Yield warnings about the design.

    Parameters
    ----------
    labels
        Canonical labels of the cells that have all three: ``perturbation, batch, cell_type``.
    config
        The section ``data``.
    """
    if labels.empty:
        return
    yield from _check_strata(labels, config)
    yield from _check_sizes(labels, config)
    yield from _check_confounding(labels, config)


def _check_strata(labels: pd.DataFrame, config: DataConfig) -> Iterator[Fault]:
    where = f"obs['{config.batch}'], obs['{config.cell_type}']"
    strata = labels.groupby(["batch", "cell_type"]).size()
    small = strata[strata < config.min_cells_per_stratum]
    if len(small):
        yield Fault(
            "warning",
            where,
            f"{len(small):,} of {len(strata):,} strata have fewer than "
            f"{config.min_cells_per_stratum} cells: {_sizes(small)}",
            int(small.sum()),
            remedy="predictions for them rest on little",
        )
    controls = labels[labels["perturbation"] == config.control]
    yield from _check_few_controls(controls, len(strata), config)
    if controls.empty:
        return
    with_controls = controls.groupby(["batch", "cell_type"]).size()
    without = strata[~strata.index.isin(with_controls.index)]
    if len(without):
        yield Fault(
            "warning",
            where,
            f"{len(without):,} of {len(strata):,} strata have no control cell: {_sizes(without)}",
            int(without.sum()),
            remedy="their effects cannot be measured, nor started from their own controls",
        )


def _check_few_controls(
    controls: pd.DataFrame, n_strata: int, config: DataConfig
) -> Iterator[Fault]:
    n_controls = controls.groupby(["batch", "cell_type"]).size()
    few = n_controls[n_controls < LEAST_CONTROLS]
    if len(few):
        yield Fault(
            "warning",
            f"obs['{config.batch}'], obs['{config.cell_type}']",
            f"{len(few):,} of {n_strata:,} strata have fewer than {LEAST_CONTROLS} controls: "
            f"{_sizes(few)}",
            int(few.sum()),
            remedy="shifts from so few are mostly their noise, and are not scored",
        )


def _check_sizes(labels: pd.DataFrame, config: DataConfig) -> Iterator[Fault]:
    sizes = labels.groupby("perturbation").size()
    small = sizes[sizes < config.min_cells_per_stratum]
    if len(small):
        yield Fault(
            "warning",
            f"obs['{config.perturbation}']",
            f"{len(small):,} of {len(sizes):,} perturbations have fewer than "
            f"{config.min_cells_per_stratum} cells: {_sizes(small)}",
            int(small.sum()),
            remedy="leave them out, or expect noise",
        )


def _check_confounding(labels: pd.DataFrame, config: DataConfig) -> Iterator[Fault]:
    if labels["batch"].nunique() < 2:
        return
    batches = labels.groupby("perturbation")["batch"].agg(lambda column: sorted(set(column)))
    if config.control not in batches.index:
        return
    of_control = batches[config.control]
    apart = {
        label: there
        for label, there in batches.items()
        if label != config.control and not set(there) & set(of_control)
    }
    if not apart:
        return
    named = "; ".join(f"'{label}' in {_few(there)}" for label, there in list(apart.items())[:3])
    if len(apart) > 3:
        named += f"; ... ({len(apart)} perturbations in all)"
    yield Fault(
        "warning",
        f"obs['{config.perturbation}'], obs['{config.batch}']",
        f"confounded with batch: {named}, the control in {_few(of_control)}, and no batch has both",
        int(labels["perturbation"].isin(list(apart)).sum()),
        remedy="the effect of the perturbation cannot be told from that of the batch",
    )


def _sizes(sizes: pd.Series) -> str:
    names = [" / ".join(key) if isinstance(key, tuple) else str(key) for key in sizes.index]
    return _few([f"{name} ({n})" for name, n in zip(names, sizes.to_numpy(), strict=True)])


def _few(names: list[str]) -> str:
    rest = f", ... ({len(names)} in all)" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + rest
