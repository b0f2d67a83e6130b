"""Stage ``register``: the model as a version in the MLflow registry."""

from pathlib import Path

from cfmvc.files import read_json, write_json
from cfmvc.registry.config import REGISTER_AGAIN, RegisterConfig
from cfmvc.registry.register import register_model
from cfmvc.tracking.lineage import DIRTY_TAG
from pipelines._paths import AVERAGES, FLOW
from pipelines._stage import stage

REGISTERED = Path("results/registered.json")


def main() -> None:
    with stage("register") as run:
        config = run.section("register", RegisterConfig)
        version = register_model(FLOW, read_json(AVERAGES), config, run.tracker, run.workspace)
        write_json(REGISTERED, version.as_json())
        print(f"registered: models:/{version.name}@{version.alias} (version {version.version})")
        if run.tracker.lineage.get(DIRTY_TAG) != "false":
            print(
                "no commit holds what this version was made of, and `cfmvc registry verify` will "
                f"not prove it; git status shows what differs: commit it, then {REGISTER_AGAIN}"
            )


if __name__ == "__main__":
    main()
