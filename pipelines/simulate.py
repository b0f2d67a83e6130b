"""Stage ``simulate``: the embedded default data set, and its truth."""

from pathlib import Path

from cfmvc.data.canonical import write_canonical
from cfmvc.data.config import SimulateConfig
from cfmvc.data.simulate import simulate
from pipelines._stage import stage


def main() -> None:
    with stage("simulate") as run:
        cells, truth = simulate(run.section("simulate", SimulateConfig))
        write_canonical(cells, Path("data/raw/simulated.h5ad"))
        write_canonical(truth, Path("data/raw/simulated_truth.h5ad"))


if __name__ == "__main__":
    main()
