"""What ``cfmvc tune`` says, and trains in full, of what a study has found."""

import json

from cfmvc.cli.tuning import changed_parameters, study_text
from cfmvc.config import override
from cfmvc.tuning.confirmation import Confirmation
from cfmvc.tuning.objectives import Objective
from cfmvc.tuning.tune import TuneResult


def result(best: float = 0.4, present: float = 0.5) -> TuneResult:
    return TuneResult(
        study="s",
        best={"trial": 4, "objectives": {}},
        n_trials={"complete": 5},
        n_vae_trainings=1,
        changes={"vae.beta": (0.5, 0.013)},
        held_out="A T",
        confirmations=[Confirmation(Objective("discrimination", "maximize"), present, best)],
    )


def test_the_values_of_the_trial_are_trained_and_not_those_it_was_compared_with() -> None:
    """With `--set vae.beta=0.5` the present value is 0.5, and the best trial has another one."""
    settings = ["vae.beta=0.5", "vae.n_epochs=3", "tune.n_trials=5"]
    params = {"vae": {"beta": 1.0, "n_epochs": 80}}
    trained = override(params, changed_parameters(result(), settings))
    assert trained == {"vae": {"beta": 0.013, "n_epochs": 3}}


def test_an_objective_that_the_test_does_not_define_is_not_called_worse() -> None:
    found = result(float("nan"), float("nan"))
    assert "not defined on these conditions" in study_text(found)
    tested = json.loads(json.dumps(found.as_json(), allow_nan=False))["test"]
    nothing = {"best": None, "present_parameters": None, "verdict": "not defined"}
    assert list(tested.values()) == [nothing]


def test_what_the_test_has_not_confirmed_is_not_the_next_thing_to_do() -> None:
    assert study_text(result(best=0.5, present=0.4)).endswith(
        "\nnext: cfmvc tune apply, then dvc repro"
    )
    worse = study_text(result(best=0.4, present=0.5))
    assert "NOT confirmed" in worse
    assert "next:" not in worse
    assert "the present parameters stay" in worse
    assert "`cfmvc tune apply` would take the others all the same" in worse


def test_values_that_params_yaml_does_not_have_are_told_with_the_best_ones() -> None:
    found = result()
    found.best["found_with"] = {"vae": {"n_epochs": 8}}
    assert "all trials had vae.n_epochs=8, which params.yaml does not say" in study_text(found)
