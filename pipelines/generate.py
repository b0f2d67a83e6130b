"""Stage ``generate``: virtual cells of the held-out conditions, and what arithmetic would give."""

from functools import partial

from cfmvc.data.canonical import write_canonical
from cfmvc.data.prepared import control_of, load_prepared
from cfmvc.models import load_bundle
from cfmvc.progress.cells import CellProgress
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.held_out import predict_held_out
from cfmvc.stages.predict import GenerateConfig
from cfmvc.tracking.course import log_velocity_events
from pipelines._paths import ARITHMETIC, FLOW, GENERATED, PREPARED
from pipelines._stage import stage


def main() -> None:
    with stage("generate") as run:
        compute = run.section("compute", ComputeConfig)
        device = use(compute.device, compute.n_threads)
        config = run.section("generate", GenerateConfig)
        cells = load_prepared(PREPARED, compute.max_counts_gib)
        control = control_of(cells)
        generate = partial(predict_held_out, load_bundle(FLOW, device), cells, control, config)
        with CellProgress("generate") as progress:
            prediction = generate(progress=progress)
        log_velocity_events(run.tracker, prediction.events)
        run.tracker.log_metrics({"n_virtual_cells": prediction.cells.n_obs}, step=0)
        write_canonical(prediction.cells, GENERATED)
        del prediction  # there may be room for one of them
        write_canonical(generate(by="arithmetic").cells, ARITHMETIC)


if __name__ == "__main__":
    main()
