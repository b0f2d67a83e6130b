"""What a model says of the conditions that a split holds out."""

from collections.abc import Callable
from typing import Literal

import pandas as pd
from anndata import AnnData

from cfmvc.data.prepared import held_out_conditions, in_whole_rounds
from cfmvc.errors import DataError
from cfmvc.models.bundle import Bundle
from cfmvc.stages.predict import GenerateConfig, Prediction, predict_cells

_MOST = 100_000  # virtual cells for which each control of a large stratum serves


def predict_held_out(
    bundle: Bundle,
    cells: AnnData,
    control: str,
    config: GenerateConfig,
    by: Literal["flow", "arithmetic"] = "flow",
    with_means: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    conditions: pd.DataFrame | None = None,
    each_control: bool = True,
) -> Prediction:
    """Generate virtual cells of held-out conditions, out of the controls outside the test.

    Parameters
    ----------
    bundle
        A trained model.
    cells
        Canonical cells with ``obs["split"]``.
    control
        Label of the unperturbed cells.
    config
        How many cells, and how.
    by, with_means, progress
        As in :func:`~cfmvc.stages.predict.predict_cells`.
    conditions
        Which, of :func:`~cfmvc.data.prepared.held_out_conditions`; all, if not given.
    each_control
        Whether each control is to serve where there are more than ``config.n_cells``, unless that
        makes very many cells: some of them have a mean of their own.

    Raises
    ------
    DataError
        If no held-out condition can be predicted.
    """
    if conditions is None:
        conditions = held_out_conditions(cells.obs, control)
    if conditions.empty:
        raise DataError(
            "no held-out condition has control cells in its batch and cell type; hold out others "
            "(split.held_out in params.yaml)"
        )
    return predict_cells(
        bundle,
        in_whole_rounds(conditions, cells.obs, control, config.n_cells, _MOST * each_control),
        cells[(cells.obs["split"] != "test").to_numpy()],
        seed=config.seed,
        n_steps=config.n_steps,
        method=config.method,
        by=by,
        with_means=with_means,
        progress=progress,
    )
