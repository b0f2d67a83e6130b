"""Choose the default sampler and pruner of ``cfmvc tune`` by measurement.

python -m benchmarks.samplers --collect 70 --data sim
python -m benchmarks.samplers --collect 70 --data FOLDER/kang_pbmc_ifnb.h5ad
python -m benchmarks.samplers --compare
"""

import argparse
from pathlib import Path

import optuna

from benchmarks.samplers.cells import SIM
from benchmarks.samplers.trials import collect
from cfmvc.config import default_params_file, read_yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collect", type=int, metavar="N", help="have N real trials in the file")
    parser.add_argument("--data", default=SIM, help=f"'{SIM}', or an .h5ad file")
    parser.add_argument("--params", type=Path, default=default_params_file())
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    params = read_yaml(arguments.params)
    if arguments.collect:
        collect(arguments.data, params, arguments.collect)


if __name__ == "__main__":
    main()
