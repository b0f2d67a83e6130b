"""Stage ``train_vae``: the negative-binomial VAE."""

from cfmvc.models import save_bundle
from cfmvc.stages.compute import ComputeConfig
from cfmvc.stages.prepared import load_training_cells
from cfmvc.stages.vae import fit_vae
from cfmvc.tracking.callback import watchers
from cfmvc.training.config import VaeConfig
from pipelines._paths import PREPARED, VAE
from pipelines._stage import stage
from pipelines._training import engine_for, write_course


def main() -> None:
    with stage("train_vae", ["vae"], [PREPARED]) as run:
        config = run.section("vae", VaeConfig)
        compute = run.section("compute", ComputeConfig)
        engine, device = engine_for(run, compute)
        cells = load_training_cells(PREPARED, compute.max_counts_gib)
        with watchers(run.tracker) as watching:
            bundle, history = fit_vae(cells, config, device, watching, engine=engine)
        if not run.shard.is_first:
            return
        save_bundle(bundle, VAE)
        write_course(run.tracker, "vae", history, bundle, cells)
        run.at_end.append(engine.checkpoints("train_vae").clear)


if __name__ == "__main__":
    main()
