"""What it costs to keep the gradient norms of every step: paired trainings with and without.

python -m benchmarks.gradient_picture [--rounds 5] [--n-cells 10000] [--n-genes 2000]
"""

import argparse
import statistics
import time

import torch

from benchmarks.memory.case import Case, cells_of, sections_of
from cfmvc.stages.vae import fit_vae
from cfmvc.training.config import VaeConfig
from cfmvc.training.engine import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--n-cells", type=int, default=10_000)
    parser.add_argument("--n-genes", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    case = Case(n_cells=arguments.n_cells, n_genes=arguments.n_genes)
    cells, config = cells_of(case), VaeConfig(**sections_of(case)["vae"])

    def seconds(engine: Engine) -> float:
        """Return the time of a step, of the second epoch."""
        _, history = fit_vae(cells, config, torch.device("cpu"), engine=engine)
        return history.rows[-1]["step_seconds"]

    ratios, began = [], time.perf_counter()
    for number in range(arguments.rounds):
        engines = [Engine(), Engine(gradient_picture=True)]
        taken = {e.gradient_picture: seconds(e) for e in engines[:: 1 if number % 2 else -1]}
        ratios.append(taken[True] / taken[False] - 1)
    cost = 100 * statistics.median(ratios)
    low, high = 100 * min(ratios), 100 * max(ratios)
    print(
        f"gradient norms: {cost:+.1f} % a step ({low:+.1f} to {high:+.1f}, {arguments.rounds} "
        f"paired rounds, {time.perf_counter() - began:.0f} s; bar: at most 3 %)"
    )


if __name__ == "__main__":
    main()
