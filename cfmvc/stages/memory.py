"""The phases of each stage, as arrays: what :mod:`cfmvc.training.memory` adds up.

No number here is fitted to a measurement: each is a count of arrays that the code makes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cfmvc.data.dataset import CellTable
from cfmvc.data.on_disk import CountsOnDisk
from cfmvc.data.resident import lives_on
from cfmvc.data.samplers import ROWS_PER_WINDOW
from cfmvc.flow.kept_conditions import MOST_CONDITIONS, MOST_TO_LEARN
from cfmvc.shards import current_shard
from cfmvc.stages.encoding import CELLS_AT_A_TIME
from cfmvc.stages.model_memory import ModelMemory, Moment
from cfmvc.training.config import FlowConfig, JointConfig, LoopConfig, VaeConfig
from cfmvc.training.engine import Engine
from cfmvc.training.memory import NUMBER, Arrays, MemoryEstimate, Phase, peak_of

_COPIES_OF_A_WINDOW = 3
_CODES = 3 * 8  # bytes a cell: perturbation, batch, cell type
Held = Callable[[int, Moment, str], list[Arrays]]


@dataclass(frozen=True)
class DataShape:
    """Shapes of training and validation cells.

    Parameters
    ----------
    n_cells, n_values
        Cells, and counts other than 0 that are in memory, of each of the two.
    n_genes, n_perturbations
        Columns.
    is_on_disk
        Whether a window of the counts is in memory, and not all of them.
    n_conditions
        Of the training.
    """

    n_cells: tuple[int, int]
    n_values: tuple[int, int]
    n_genes: int
    n_perturbations: int
    is_on_disk: bool = False
    n_conditions: int = 0

    @classmethod
    def of(cls, train: CellTable, val: CellTable) -> "DataShape":
        """Read the shapes of two tables."""
        return cls(
            (len(train), len(val)),
            (_n_values(train), _n_values(val)),
            train.n_genes,
            train.conditions.shape[1],
            train.is_on_disk,
            _n_conditions(train),
        )

    def tables(self, device: torch.device) -> list[Arrays]:
        """Return the two tables; of a GPU's memory they are a part if they live there."""
        if device.type != "cpu":
            return [
                Arrays("cells on the GPU", n * self.n_genes * NUMBER)
                for n in self.n_cells
                if lives_on(device, n, self.n_genes)
            ]
        sets = zip(self.n_cells, self.n_values, strict=True)
        return [
            array
            for n, n_values in sets
            for array in (
                Arrays("tables of the cells", n_values * NUMBER, 2),
                Arrays("tables of the cells", n * (NUMBER + _CODES)),
            )
        ]

    def present(self, device: torch.device) -> float:
        """Return the bytes of what is there before a stage begins: tables in memory."""
        return 0.0 if self.is_on_disk or device.type != "cpu" else _sum(self.tables(device))


def _n_values(table: CellTable) -> int:
    """Return how many values are in memory: read in blocks, joined, and put in order."""
    if isinstance(table.counts, CountsOnDisk):
        return int(
            _COPIES_OF_A_WINDOW * table.counts.values_per_row * min(len(table), ROWS_PER_WINDOW)
        )
    return int(table.counts.nnz)


def _n_conditions(table: CellTable) -> int:
    stratum = table.batch * (int(table.cell_type.max(initial=0)) + 1) + table.cell_type
    return len(np.unique(stratum * len(table.conditions) + table.condition))


def vae_memory(
    shape: DataShape, sizes: dict[str, Any], vae: VaeConfig, engine: Engine, device: torch.device
) -> MemoryEstimate:
    """Return the expected peak of stage 1.

    Parameters
    ----------
    shape
        Of the cells.
    sizes
        Of the model, as its constructor takes them.
    vae, engine, device
        Of the stage.
    """
    model, data = ModelMemory(sizes), shape.tables(device)
    there = [*data, *model.weights()]
    # To take the mean of a CSR matrix scipy copies it.
    is_copied = device.type == "cpu" and not shape.is_on_disk
    copied = [Arrays("copy of the counts", shape.n_values[0] * NUMBER, 2)] if is_copied else []
    phases = [
        Phase("beginning", [*there, *copied]),
        *_training(shape, vae, engine, model.n_vae, there, model.vae, shape.n_genes),
        _encoding(shape, model, there),
    ]
    return peak_of("train_vae", phases, device, shape.present(device), _advice("vae"))


def flow_memory(
    shape: DataShape, sizes: dict[str, Any], flow: FlowConfig, engine: Engine, device: torch.device
) -> MemoryEstimate:
    """Return the expected peak of stage 2; ``sizes`` are those of the model with its new flow."""
    model, data = ModelMemory(sizes), shape.tables(device)
    there = [*data, *model.weights(), *model.weights()]  # as it was trained, and with a new flow
    n_all, width = sum(shape.n_cells), (sizes["dim_int"] + model.n_place) * NUMBER
    # Latents, moved means, and what is coupled: both sides in standard units.
    later = [
        *there,
        Arrays("latents", n_all * model.per_latent),
        Arrays("coupled latents", n_all * width, 4),
    ]

    def held(n: int, moment: Moment, precision: str) -> list[Arrays]:
        return model.flow(n, moment, flow.lambda_dist)

    is_on_host = device.type == "cpu"  # the mean response always is
    phases = [
        _encoding(shape, model, there),
        Phase("coupling cells", later),
        *_training(shape, flow, engine, model.n_flow, later, held, 2 * sizes["dim_int"]),
    ]
    if is_on_host and flow.mean_response > 0:
        phases.append(mean_response_phase(shape, later, sizes["embedding_dim"] is not None))
    present = shape.present(device) + _sum(model.weights())
    return peak_of("train_flow", phases, device, present, _advice("flow"))


def joint_memory(
    shape: DataShape,
    sizes: dict[str, Any],
    joint: JointConfig,
    lambda_dist: float,
    engine: Engine,
    device: torch.device,
) -> MemoryEstimate:
    """Return the expected peak of stage 3."""
    model = ModelMemory(sizes)
    latents = Arrays("latents", shape.n_cells[0] * model.per_latent)  # those of before
    there = [*shape.tables(device), *model.weights(), latents]
    present = shape.present(device) + _sum([*model.weights(), latents])

    def held(n: int, moment: Moment, precision: str) -> list[Arrays]:
        return [*model.vae(n, moment, precision), *model.flow(n, moment, lambda_dist)]

    n_learning = model.n_vae + model.n_flow
    phases = [
        *_training(shape, joint, engine, n_learning, there, held, shape.n_genes),
        _encoding(shape, model, there),
    ]
    return peak_of("train_joint", phases, device, present, _advice("joint", "vae"))


def _training(
    shape: DataShape,
    config: LoopConfig,
    engine: Engine,
    n_learning: int,
    there: Sequence[Arrays],
    held: Held,
    n_columns: int,
) -> list[Phase]:
    """Return the phases of the loop.

    Parameters
    ----------
    n_learning
        Numbers that learn; ``there`` has the weights themselves.
    held
        From cells, moment and precision to what an objective holds.
    n_columns
        Numbers of a gathered cell, besides its perturbation vector.
    """
    n_ranks = current_shard().n_ranks  # a process gathers its share alone
    n, n_val = (-(-min(config.cells_per_step, n) // n_ranks) for n in shape.n_cells)
    weights, part = n_learning * NUMBER, -(-n // engine.n_parts)
    # Gradient and two moments; average; best.
    n_copies = 3 + (config.ema_decay > 0) + (n_val > 0)
    if config.nan_policy == "rollback":  # the last good state, and the next one while it is made
        n_copies += 2 * n_copies
    lasting = [*there, Arrays("optimiser and averages", weights, n_copies)]

    def phase(name: str, n: int, *more: Arrays) -> Phase:
        # All parts of a step are kept, for the black box to look at.
        gathered = Arrays("cells of a step", n * (n_columns + shape.n_perturbations) * NUMBER)
        return Phase(name, [*lasting, gathered, *more])

    forward = held(part, "forward", engine.precision)
    backward = held(part, "backward", engine.precision)
    gradients = Arrays("gradients of the layers", weights)
    phases = [
        phase("training, forward", n, *forward),
        phase("training, backward", n, *backward, gradients),
    ]
    if n_val:  # in one part; the weights are put aside, and a better average is copied
        aside = Arrays("weights put aside", weights, 2)
        phases.append(phase("validating", n_val, *held(n_val, "validation", "float32"), aside))
    return phases


def mean_response_phase(
    shape: DataShape, there: Sequence[Arrays], has_embeddings: bool = False
) -> Phase:
    """Return the phase in which the mean response is learnt, in double precision."""
    n_kept = min(shape.n_conditions, MOST_CONDITIONS)
    n_learnt = min(n_kept, MOST_TO_LEARN)
    # Such matrices, traced: effects and contexts of all, or the parts themselves, and what their
    # likelihood takes, of those that they are learnt of.
    of_all, of_some = (9, 44) if has_embeddings else (8, 38)
    return Phase(
        "learning the mean response",
        [
            *there,
            # Sums of expression, their means, and the products of both.
            Arrays("means of the conditions", n_kept * shape.n_genes * 8, 3),
            # Shifts and levels, and what is left of them.
            Arrays("shifts of the conditions", n_kept * shape.n_genes * 8, 3),
            Arrays(
                "covariance of the conditions", max(n_kept**2 * of_all, n_learnt**2 * of_some) * 8
            ),
        ],
    )


def _encoding(shape: DataShape, model: ModelMemory, there: Sequence[Arrays]) -> Phase:
    n_all = sum(shape.n_cells)
    n = min(CELLS_AT_A_TIME, max(shape.n_cells))
    return Phase("encoding all cells", [*there, *model.encoding(n, n_all)])


def _sum(arrays: Sequence[Arrays]) -> float:
    return sum(array.n * array.n_bytes for array in arrays)


def _advice(section: str, shape: str = "") -> str:
    """Say what to lower; ``compute.recompute`` is not in it, for it saves nothing at the peak."""
    return (
        f"lower {section}.cells_per_step or {shape or section}.hidden_dim, raise compute.n_parts, "
        "or take fewer genes"
    )
