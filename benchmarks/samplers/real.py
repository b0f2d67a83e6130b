"""The same comparison with real studies, which takes hours."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.samplers.cells import prepare, smaller
from cfmvc.tuning.samplers import SAMPLERS
from cfmvc.tuning.tune import tune


def real_studies(data: str, params: dict[str, Any], n_seeds: int, n_trials: int) -> pd.DataFrame:
    """Carry out a study for each sampler and seed, with the pruner of the parameters.

    Returns
    -------
    pandas.DataFrame
        Best values, one row a sampler, one column a seed.
    """
    params, best = smaller(params), pd.DataFrame(index=list(SAMPLERS), columns=range(n_seeds))
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)  # one for all, so that equal VAEs are trained once
        prepare(data, params, workspace)
        for seed in range(n_seeds):
            for sampler in SAMPLERS:
                own = {"sampler": sampler, "seed": seed, "study": f"{sampler}-{seed}"}
                changed = {**params, "tune": {**params["tune"], **own, "n_trials": n_trials}}
                found = tune(workspace, changed, with_test=False)
                value = next(iter(found.best["objectives"].values()))["validation"]
                best.loc[sampler, seed] = value
                print(f"{sampler}, seed {seed}: {value:.4g}", flush=True)
    median = best.astype(float).median(axis=1)
    share = best.astype(float).lt(best.loc["random"].astype(float)).mean(axis=1)
    return best.assign(median=median, better_than_random=np.round(share, 2))
