"""Stage ``train_flow``: the conditional flow, and joint fine-tuning where it has epochs."""

from pathlib import Path

from cfmvc.models import load_bundle, save_bundle
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.flow import fit_flow, fit_joint
from cfmvc.stages.prepared import load_training_cells
from cfmvc.training.config import FlowConfig, JointConfig
from pipelines._stage import stage
from pipelines._training import watchers, write_course
from pipelines.prepare import PREPARED
from pipelines.train_vae import MODEL as VAE

MODEL = Path("models/flow")


def main() -> None:
    with stage("train_flow") as run:
        device = use(run.section("compute", ComputeConfig))
        flow, joint = run.section("flow", FlowConfig), run.section("joint", JointConfig)
        cells = load_training_cells(PREPARED)
        bundle, history = fit_flow(
            load_bundle(VAE, device), cells, flow, device, watchers(run.tracker)
        )
        if joint.n_epochs:
            bundle, after = fit_joint(
                bundle, cells, joint, flow.lambda_dist, device, watchers(run.tracker, "joint_")
            )
            history = history.followed_by(after)
        save_bundle(bundle, MODEL)
        write_course(run.tracker, "flow", history, bundle, cells)


if __name__ == "__main__":
    main()
