"""Loss and gradient of a step of stage 2 with and without ``torch.compile``, cold start included.

python -m benchmarks.compiled_step [--steps 400]

The first step is cold only without torch's cache of earlier compilations.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import torch._inductor.config as inductor

from cfmvc.models import CFMVCModel
from cfmvc.training.flat import FlatParameters
from cfmvc.training.objectives import FlowObjective, learning_parameters

_CELLS, _GENES, _BATCHES, _TYPES, _PERTURBATIONS = 64, 200, 3, 4, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="of each side, in turn")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inductor.fallback_random = True  # the draws of eager mode, so that both do the same
    model = CFMVCModel(_GENES, _BATCHES, _TYPES, _PERTURBATIONS, source="noise").train()
    flat = FlatParameters(learning_parameters(FlowObjective(model)))
    cells = (
        torch.randn(_CELLS, model.sizes["dim_int"]),
        torch.eye(_PERTURBATIONS)[torch.randint(0, _PERTURBATIONS, (_CELLS,))],
        torch.randint(0, _BATCHES, (_CELLS,)),
        torch.randint(0, _TYPES, (_CELLS,)),
    )

    def eager(*of: torch.Tensor) -> torch.Tensor:
        return model.flow_step(*of)[0]

    def seconds(loss: Callable[..., torch.Tensor]) -> float:
        started = time.perf_counter()
        flat.differentiate(loss(*cells), 1.0, is_first=True)
        return time.perf_counter() - started

    compiled = torch.compile(eager, dynamic=False)
    print(f"first compiled step: {seconds(compiled):.1f} s")
    sides = {"eager": eager, "compiled": compiled}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.steps):
        for name, loss in sides.items():
            taken[name].append(seconds(loss))
    for name, values in taken.items():
        print(f"{name}: median {1e3 * median(values):.2f} ms, least {1e3 * min(values):.2f} ms")


if __name__ == "__main__":
    main()
