"""Choose the default sampler and pruner of ``cfmvc tune`` by measurement.

    python -m benchmarks.samplers --collect 80 --data sim
    python -m benchmarks.samplers --collect 80 --data FOLDER/kang_pbmc_ifnb.h5ad
    python -m benchmarks.samplers --compare --data sim  # samplers; or kang
    python -m benchmarks.samplers --prune --data sim    # pruners; or kang

Collecting trains at random points of the space, and can be stopped and gone on with; comparing
trains nothing. ``--real`` compares by real studies instead: hours.
"""

import argparse
from pathlib import Path

import optuna

from benchmarks.samplers.cells import SIM, set_name
from benchmarks.samplers.page import Extent, pruners_page, samplers_page
from benchmarks.samplers.real import real_studies
from benchmarks.samplers.trials import collect, file_of
from cfmvc.config import default_params_file, read_yaml
from cfmvc.tuning.search import Search

_FEW_SEEDS = 5  # of real studies, and of slow samplers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--collect", type=int, metavar="N", help="have N real trials in the file")
    what.add_argument("--compare", action="store_true", help="samplers, on what was collected")
    what.add_argument("--prune", action="store_true", help="pruners, on what was collected")
    what.add_argument("--real", action="store_true", help="by real studies: hours")
    parser.add_argument("--data", default=SIM, help=f"'{SIM}', or an .h5ad file")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--slow-seeds", type=int, default=_FEW_SEEDS, help="of slow samplers")
    parser.add_argument("--trials", type=int, default=30, help="of a study")
    parser.add_argument("--orders", type=int, default=200, help="of the trials, for the pruners")
    parser.add_argument("--params", type=Path, default=default_params_file())
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # gp warns of each condition
    params = read_yaml(arguments.params)
    if arguments.collect:
        collect(arguments.data, params, arguments.collect)
    elif arguments.real:
        seeds = arguments.seeds or _FEW_SEEDS
        print(real_studies(arguments.data, params, seeds, arguments.trials).to_markdown())
    else:
        seeds = (arguments.seeds or 4 * _FEW_SEEDS, arguments.slow_seeds)
        extent = Extent(*seeds, arguments.trials, arguments.orders)
        file, search = file_of(set_name(arguments.data)), Search.of(params)
        if arguments.prune:
            page = pruners_page(file, search, extent)
            page.write(file.with_name(file.name.replace("samplers", "pruners")).with_suffix(".md"))
        else:
            samplers_page(file, search, extent).write(file.with_suffix(".md"))


if __name__ == "__main__":
    main()
