"""Measured mean shifts of held-out conditions, beside what a mean response is asked for them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from anndata import AnnData

from cfmvc.data.normalise import log_normalise
from cfmvc.data.vocabulary import Vocabulary
from cfmvc.models.mean_response import AskedShifts, MeanResponse
from cfmvc.stages.prepared import training_cells
from cfmvc.stages.vae import TrainingCells

FEWEST = 8  # cells of a condition

Learn = Callable[[TrainingCells, float], tuple[MeanResponse, MeanResponse]]
"""Learns two mean responses of cells that are normalised to a library."""


@dataclass(frozen=True)
class HeldOutShift:
    """One condition.

    Parameters
    ----------
    label
        Its names.
    asked
        As the mean response is asked for it.
    measured
        Mean log expression less that of its stratum's training controls, ``(G,)``.
    noise, own_noise
        Variance of that, and of the condition's mean alone, ``(G,)``.
    """

    label: str
    asked: AskedShifts
    measured: np.ndarray
    noise: np.ndarray
    own_noise: np.ndarray


def held_out_shifts(
    fold: AnnData, columns: Vocabulary, library: float, response: MeanResponse
) -> Iterator[HeldOutShift]:
    """Yield the held-out conditions that have enough cells, and controls in the training.

    Parameters
    ----------
    fold
        Cells with their part in ``obs["split"]``.
    columns, library, response
        Of the training.
    """
    test = fold[(fold.obs["split"] == "test").to_numpy()]
    names = ["perturbation", "batch", "cell_type", *(["dose"] if "dose" in test.obs else [])]
    for labels, rows in test.obs.groupby(names, observed=True).indices.items():
        batch, cell_type = columns.batch_codes([labels[1]]), columns.cell_type_codes([labels[2]])
        controls = response.controls_of(int(batch[0]), int(cell_type[0]))
        if len(rows) < FEWEST or controls is None:
            continue
        mean, n_controls = controls
        p = columns.perturbation_matrix([labels[0]], list(labels[3:]) or None)
        logged = log_normalise(test[rows].layers["counts"].tocsr(), library)
        yield HeldOutShift(
            " | ".join(map(str, labels)),
            AskedShifts(p, batch, cell_type, mean[None], np.asarray([n_controls])),
            np.asarray(logged.mean(axis=0)).reshape(-1) - mean,
            response.spread**2 * (1.0 / len(rows) + 1.0 / n_controls),
            response.spread**2 / len(rows),
        )


def squares(fold: AnnData, learn: Learn) -> np.ndarray:
    """Return summed squares: the errors of both responses, and those of expecting nothing.

    Less the noise of the measured means.
    """
    known = training_cells(fold)
    library = float(np.median(known.train.library))
    both, sums = learn(known, library), np.zeros(3)
    for one in held_out_shifts(fold, known.vocabulary, library, both[0]):
        told = [*(response.expected(one.asked)[0] for response in both), 0.0]
        sums += [((shift - one.measured) ** 2 - one.noise).sum() for shift in told]
    return sums
