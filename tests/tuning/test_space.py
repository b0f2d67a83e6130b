from typing import Any

import optuna
import pytest

from cfmvc.errors import ConfigError
from cfmvc.tuning.config import TuneConfig
from cfmvc.tuning.search import Search
from cfmvc.tuning.space import TUNABLE, Space, merged
from tests.tuning.conftest import with_tune

_SECTIONS = ["vae", "flow", "joint", "generate", "evaluate", "compute", "checkpoint"]
_RATE = {"flow.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
_WIDTH = {"flow.hidden_dim": {"low": 16, "high": 64}}


def space_of(params: dict[str, Any], space: dict[str, Any], **tune: Any) -> Space:
    changed = with_tune(params, space=space, **tune)
    return Space.of(TuneConfig(**changed["tune"]), changed)


def suggested(space: Space, fixed: dict[str, Any] | None = None) -> dict[str, Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    if fixed is not None:
        study.enqueue_trial(fixed)
    return space.suggest(study.ask())


def test_what_the_shipped_space_names_can_all_be_trained_with(params: dict[str, Any]) -> None:
    search = Search.of(params)
    changed = merged(search.params, suggested(search.space))
    assert set(changed) == set(params)
    shipped = Space.of(TuneConfig(**params["tune"]), params)
    assert set(suggested(shipped)) <= set(TUNABLE)


def test_an_unknown_name_is_an_error_that_lists_the_valid_ones(params: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        space_of(params, {"vae.betta": {"low": 0.1, "high": 1.0}})
    assert "tune.space.vae.betta: no parameter 'vae.betta' (did you mean 'vae.beta'?)" in str(
        error.value
    )
    assert all(f"'{name}'" in str(error.value) for name in TUNABLE)
    with pytest.raises(ConfigError, match="valid are"):
        space_of(params, {"vae.seed": {"choices": [1, 2]}})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"low": 1.0, "high": 0.1}, "low .1.0. must be below high .0.1."),
        ({"low": 0.0, "high": 1.0, "log": True}, "with log, low .0.0. must be above 0"),
        ({"low": 0.1, "high": 1.0, "steps": 3}, "steps"),
        ({"low": 0.1, "high": float("inf")}, "low .0.1. and high .inf. must be finite"),
        ({"choices": []}, "at least 1 item"),
    ],
)
def test_a_wrong_entry_is_an_error(
    params: dict[str, Any], entry: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Search.of(with_tune(params, space={"vae.beta": entry}))


def test_a_logarithm_of_a_present_value_of_0_is_an_error_before_any_trial(
    params: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError, match=r"tune.space.flow.lambda_dist: log: true, and the pres"):
        space_of(params, {"flow.lambda_dist": {"low": 0.01, "high": 1.0, "log": True}})


def test_a_range_of_epochs_asks_for_a_present_number(params: dict[str, Any]) -> None:
    space = {"vae.n_epochs": {"low": 20, "high": 200}}
    params["vae"]["n_epochs"] = 0
    with pytest.raises(ConfigError, match="is 0: as the cells ask for"):
        space_of(params, space)
    params["vae"]["n_epochs"] = 80
    assert suggested(space_of(params, space))["vae.n_epochs"] >= 20


def test_a_present_value_between_whole_bounds_is_not_cut_off(params: dict[str, Any]) -> None:
    params = {**params, "flow": {**params["flow"], "mean_response": 0.75}}
    space = space_of(params, {"flow.mean_response": {"low": 0, "high": 1}})
    study = optuna.create_study()
    study.enqueue_trial(space.warm({}))
    assert space.suggest(study.ask()) == {"flow.mean_response": 0.75}


def test_values_that_the_parameter_does_not_take_are_an_error_before_any_trial(
    params: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError, match=r"tune.space.flow.dropout: flow.dropout"):
        space_of(params, {"flow.dropout": {"low": 0.0, "high": 1.5}})
    with pytest.raises(ConfigError, match=r"tune.space.flow.source: flow.source"):
        space_of(params, {"flow.source": {"choices": ["noise", "thin air"]}})


def test_the_present_values_belong_to_the_space(params: dict[str, Any]) -> None:
    params["vae"]["beta"], params["flow"]["hidden_dim"] = 5.0, 48
    space = space_of(
        params,
        {
            "vae.beta": {"low": 0.1, "high": 1.0, "log": True},
            "flow.hidden_dim": {"choices": [16, 32]},
        },
    )
    present = {"vae.beta": 5.0, "flow.hidden_dim": 48}
    assert space.warm({}) == present
    assert suggested(space, present) == present


def test_bounds_decide_the_kind_of_number(params: dict[str, Any]) -> None:
    space = space_of(
        params,
        {
            "flow.n_basis": {"low": 4, "high": 32, "log": True},
            "vae.dropout": {"low": 0, "high": 0.5},
        },
    )
    found = suggested(space)
    assert isinstance(found["flow.n_basis"], int)
    assert isinstance(found["vae.dropout"], float)


def test_a_condition_that_is_not_met_leaves_the_present_value(params: dict[str, Any]) -> None:
    space = space_of(
        params,
        {
            "flow.coupling": {
                "choices": ["ot", "independent"],
                "when": {"flow.source": ["control"]},
            },
            "flow.source": {"choices": ["control", "noise"]},
        },
    )
    assert list(space.entries) == ["flow.source", "flow.coupling"], "parents first"
    assert set(suggested(space, {"flow.source": "noise"})) == {"flow.source"}
    assert set(suggested(space, {"flow.source": "control"})) == {"flow.source", "flow.coupling"}
    assert set(space.warm({"flow.source": "noise"})) == {"flow.source"}


def test_conditions_in_a_circle_are_an_error(params: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="conditions go in a circle"):
        space_of(
            params,
            {
                "flow.coupling": {"choices": ["ot"], "when": {"flow.source": ["control"]}},
                "flow.source": {"choices": ["control"], "when": {"flow.coupling": ["ot"]}},
            },
        )


def test_a_warm_start_outside_of_the_space_is_an_error(params: dict[str, Any]) -> None:
    space = {"vae.beta": {"low": 0.01, "high": 1.0}}
    with pytest.raises(ConfigError, match=r"tune.warm_start\[0\]: vae.beta: 7 is outside"):
        space_of(params, space, warm_start=[{"vae.beta": 7}])
    with pytest.raises(ConfigError, match=r"tune.warm_start\[1\]: no parameter 'vae.rate'"):
        space_of(params, space, warm_start=[{}, {"vae.rate": 0.1}])


def test_of_a_warm_start_what_is_not_searched_is_passed_over(params: dict[str, Any]) -> None:
    space = {"vae.beta": {"low": 0.01, "high": 1.0}}
    warm = [{"vae.beta": 0.5, "flow.lr": 0.1}]
    assert space_of(params, space, warm_start=warm).warm(warm[0]) == {"vae.beta": 0.5}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"objectives": ["energy"]}, "no metric 'energy'.*valid are .*'energy_distance'"),
        ({"objectives": ["mmd2", "mmd2"]}, "each may come once"),
        ({"sampler": "tpee"}, "no sampler 'tpee' .did you mean 'tpe'"),
        (
            {"sampler": "cmaes", "objectives": ["mmd2", "energy_distance"]},
            "'cmaes' looks for one objective, and tune.objectives has 2; take another sampler",
        ),
        ({"pruner": "mean"}, "no pruner 'mean'.*valid are"),
        ({"n_trials": 0}, "tune.n_trials"),
        ({"n_trails": 3}, "n_trails"),
    ],
)
def test_a_wrong_plan_is_an_error(
    params: dict[str, Any], values: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Search.of(with_tune(params, **values))


@pytest.mark.parametrize("name", _SECTIONS)
def test_a_section_that_a_trial_needs_and_that_is_missing_or_empty_is_an_error(
    params: dict[str, Any], name: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{name}\.\w+: missing"):
        Search.of({**params, name: None})
    with pytest.raises(ConfigError, match=f"no section '{name}'; sections: 'data'"):
        Search.of({section: values for section, values in params.items() if section != name})


def test_a_range_over_what_is_no_number_is_an_error(params: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"tune.space.flow.source: .* words: list them as choic"):
        space_of(params, {"flow.source": {"low": 0, "high": 1}})
    params["flow"]["lr"] = "1e-3"
    with pytest.raises(ConfigError, match=r"tune.space.flow.lr: .* the text '1e-3': .*no quotes"):
        space_of(params, _RATE)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("fast", "expected a number without quotes, found 'fast'"),
        ("0.001", "expected a number without quotes, found '0.001'"),
        (None, "expected a number without quotes, found null"),
        ([0.001], "expected a number without quotes"),
        (float("nan"), "nan is outside of tune.space"),
    ],
)
def test_a_warm_start_of_a_range_is_a_number(
    params: dict[str, Any], value: object, words: str
) -> None:
    with pytest.raises(ConfigError, match=rf"tune.warm_start\[1\]: flow.lr: {words}"):
        space_of(params, _RATE, warm_start=[{}, {"flow.lr": value}])


def test_of_a_whole_number_nothing_between_is_drawn(params: dict[str, Any]) -> None:
    """A bound, a present value or a warm start with a fraction makes a range one of fractions."""
    with pytest.raises(ConfigError, match=r"hidden_dim: takes whole .* 100.0 .* write 100$"):
        space_of(params, {"flow.hidden_dim": {"low": 16, "high": 1e2}})
    with pytest.raises(
        ConfigError, match=r"tune.warm_start\[0\]: flow.hidden_dim: .* and 32.5 is none"
    ):
        space_of(params, _WIDTH, warm_start=[{"flow.hidden_dim": 32.5}])
    whole = space_of(params, _WIDTH, warm_start=[{"flow.hidden_dim": 32.0}])
    assert isinstance(suggested(whole)["flow.hidden_dim"], int)
    params["flow"]["hidden_dim"] = 64
    with pytest.raises(ConfigError, match=r"hidden_dim: takes whole .* 64.0 .* write 64$"):
        space_of(params, {"flow.hidden_dim": {"low": 16, "high": 64.0}})
    params["flow"]["hidden_dim"] = 1e2
    with pytest.raises(ConfigError, match=r"hidden_dim: takes whole .* 100.0 .* in params.yaml"):
        space_of(params, _WIDTH)


def test_directions_come_from_the_table_of_metrics(params: dict[str, Any]) -> None:
    names = ["pearson_delta", "energy_distance", "variance_ratio_top50", "train_seconds"]
    objectives = Search.of(with_tune(params, objectives=names)).objectives
    directions = ["maximize", "minimize", "minimize", "minimize"]
    assert [objective.direction for objective in objectives] == directions
    assert objectives[2].value({"variance_ratio_top50": 0.75}) == 0.25, "the distance from 1"
    assert objectives[0].value({"pearson_delta": 0.75}) == 0.75
