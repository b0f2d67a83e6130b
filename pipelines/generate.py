"""Stage ``generate``: virtual cells of the held-out conditions, and what arithmetic would give."""

from functools import partial

from cfmvc.data.canonical import write_canonical
from cfmvc.data.prepared import held_out_conditions, in_whole_rounds, load_prepared
from cfmvc.errors import DataError
from cfmvc.models import load_bundle
from cfmvc.progress.cells import CellProgress
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.predict import GenerateConfig, predict_cells
from cfmvc.tracking.course import log_velocity_events
from pipelines._paths import ARITHMETIC, FLOW, GENERATED, PREPARED
from pipelines._stage import stage


def main() -> None:
    with stage("generate") as run:
        compute = run.section("compute", ComputeConfig)
        device = use(compute.device, compute.n_threads)
        config = run.section("generate", GenerateConfig)
        cells = load_prepared(PREPARED, compute.max_counts_gib)
        control = str(cells.uns["cfmvc"]["control"])
        conditions = held_out_conditions(cells.obs, control)
        if conditions.empty:
            raise DataError(
                "no held-out condition has control cells in its batch and cell type; hold out "
                "others (split.held_out in params.yaml)"
            )
        bundle = load_bundle(FLOW, device)
        wanted = in_whole_rounds(conditions, cells.obs, control, config.n_cells)
        generate = partial(
            predict_cells,
            bundle,
            wanted,
            cells[(cells.obs["split"] != "test").to_numpy()],
            seed=config.seed,
            n_steps=config.n_steps,
            method=config.method,
        )
        with CellProgress("generate") as progress:
            prediction = generate(progress=progress)
        log_velocity_events(run.tracker, prediction.events)
        run.tracker.log_metrics({"n_virtual_cells": prediction.cells.n_obs}, step=0)
        write_canonical(prediction.cells, GENERATED)
        write_canonical(generate(by="arithmetic").cells, ARITHMETIC)


if __name__ == "__main__":
    main()
