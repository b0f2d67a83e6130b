"""Stage ``train_flow``: the conditional flow, and joint fine-tuning where it has epochs."""

from cfmvc.models import load_bundle, save_bundle
from cfmvc.stages.compute import ComputeConfig
from cfmvc.stages.flow import expect_trainable, fit_flow, fit_joint
from cfmvc.stages.prepared import load_training_cells
from cfmvc.tracking.callback import watchers
from cfmvc.training.config import FlowConfig, JointConfig
from pipelines._paths import FLOW, PREPARED, VAE
from pipelines._stage import stage
from pipelines._training import engine_for, write_course


def main() -> None:
    with stage("train_flow", ["flow", "joint"], [PREPARED, *sorted(VAE.glob("*"))]) as run:
        flow, joint = run.section("flow", FlowConfig), run.section("joint", JointConfig)
        compute = run.section("compute", ComputeConfig)
        engine, device = engine_for(run, compute)
        cells = load_training_cells(PREPARED, compute.max_counts_gib)
        expect_trainable(flow, joint, cells)
        with watchers(run.tracker) as watching:
            trained = load_bundle(VAE, device)
            bundle, history = fit_flow(trained, cells, flow, device, watching, engine)
        if joint.n_epochs:
            with watchers(run.tracker, "joint_") as watching:
                bundle, after = fit_joint(bundle, cells, joint, flow, device, watching, engine)
            history = history.followed_by(after)
        if not run.shard.is_first:
            return
        save_bundle(bundle, FLOW)
        write_course(run.tracker, "flow", history, bundle, cells)
        for name in ("train_flow", "train_joint"):
            run.at_end.append(engine.checkpoints(name).clear)


if __name__ == "__main__":
    main()
