"""What stands in for real trials says of known ones what is true of them."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.samplers import compare
from benchmarks.samplers.pruners import compare as compare_pruners
from benchmarks.samplers.pruners import foresight, replay
from benchmarks.samplers.surrogate import KINDS, Surrogate, encoded
from benchmarks.samplers.trials import VALUE, drawn
from cfmvc.config import default_params_file, read_yaml
from cfmvc.tuning.search import Search
from cfmvc.tuning.space import Space, Values

N_TRIALS = 60


@pytest.fixture(scope="module")
def space() -> Space:
    return Search.of(read_yaml(default_params_file())).space


def value_of(values: Values) -> float:
    bad = 2.0 if values["flow.source"] == "noise" else 0.0
    return float(np.exp(bad + 4 * np.log10(values["flow.lr"] / 3e-4) ** 2))


@pytest.fixture(scope="module")
def table(space: Space) -> pd.DataFrame:
    rows = [{**values, VALUE: value_of(values)} for values in drawn(space, N_TRIALS)]
    return pd.DataFrame(rows)


def courses(n_trials: int) -> pd.DataFrame:
    """Return trials whose looks tell their value: each takes 4 s, with looks after 1 and 2 s."""
    values = np.random.default_rng(0).permutation(n_trials) + 1.0
    looks = {"look_1": values * 3, "look_2": values * 2}
    times = {"seconds_at_1": 1.0, "seconds_at_2": 2.0, "seconds": 4.0}
    return pd.DataFrame({**looks, **times, VALUE: values})


def test_trials_are_drawn_alike_however_many_there_are(space: Space) -> None:
    assert drawn(space, 9)[:4] == drawn(space, 4)
    assert drawn(space, 1) == [space.warm({})]


@pytest.mark.parametrize("kind", KINDS)
def test_a_surrogate_knows_what_is_better(kind: str, space: Space, table: pd.DataFrame) -> None:
    surrogate = Surrogate.of(KINDS[kind], space, table)
    assert surrogate.r2 > 0.8
    good, bad = ({"flow.source": source} for source in ("control", "noise"))
    assert surrogate(space.warm(good)) < 0.5 * surrogate(space.warm(bad))
    noisy = [surrogate.with_noise(1.5, draw) for draw in (0.0, 0.5, 0.999)]
    assert all(0.3 < value < 6 for value in noisy)


def test_what_a_trial_does_not_have_is_neither_word(space: Space) -> None:
    with_it, without = (space.warm({"flow.source": word}) for word in ("control", "noise"))
    both = encoded(space, [with_it, without])
    assert both.min() >= 0
    assert both.max() <= 1
    assert both[0].sum() == pytest.approx(both[1].sum() + 1)


def test_a_sampler_that_learns_is_seen_to_be_better(space: Space, table: pd.DataFrame) -> None:
    surrogate = Surrogate.of(KINDS["smooth"], space, table)
    tpe, random = (compare.studies(surrogate, name, 6, 25, 5) for name in ("tpe", "random"))
    assert np.median(tpe.true) < np.median(random.true)
    rows = compare.table_of({"tpe": tpe, "random": random})
    assert rows.loc["random", "beats random"] == ""
    assert rows.loc["tpe", "beats random"].endswith("%")


def test_a_pruner_saves_time_and_keeps_the_best_where_looks_tell_the_value() -> None:
    trials = courses(30)
    whole, pruned = (replay(trials, name, 5, 1) for name in ("none", "median"))
    assert whole.spent[-1] == 4.0 * len(trials)
    assert pruned.spent[-1] < 0.8 * whole.spent[-1]
    assert pruned.best[-1] == whole.best[-1] == 1.0
    rows = compare_pruners(trials, n_orders=3, n_trials=20, n_startup=5, n_looks=1)
    assert rows.loc["none", "compute saved"] == "0%"
    assert rows.loc["median", "best trial lost"] == "0%"
    assert foresight(trials) == "1.00, 1.00"
