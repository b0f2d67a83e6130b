"""Sections of ``params.yaml`` that are none, or empty, or name what is not theirs to name."""

from typing import Any

import pytest

from cfmvc.config import default_params_file, override, read_yaml, section_of
from cfmvc.errors import ConfigError
from cfmvc.registry.config import GateConfig, RegisterConfig


@pytest.fixture
def params() -> dict[str, Any]:
    return read_yaml(default_params_file())


def test_what_is_no_section_is_left_alone(params: dict[str, Any]) -> None:
    """A value of the user's own DVC stage, and a section without a line."""
    given = params | {"seed": 0, "notes": None}
    changed = override(given, ["flow.lr=0.5"])
    assert (changed["seed"], changed["notes"], changed["flow"]["lr"]) == (0, None, 0.5)
    assert given["flow"]["lr"] != 0.5
    with pytest.raises(ConfigError, match=r"'seed\.x': no section 'seed'"):
        override(given, ["seed.x=1"])


def test_an_empty_section_names_what_it_lacks(params: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"gate\.metrics: missing"):
        section_of(params | {"gate": None}, "gate", GateConfig)
    with pytest.raises(ConfigError, match="gate: expected keys with values, found 3"):
        section_of(params | {"gate": 3}, "gate", GateConfig)


def test_mlflows_own_alias_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="'Latest' is MLflow's own name"):
        section_of(override(params, ["register.alias=Latest"]), "register", RegisterConfig)


@pytest.mark.parametrize("alias", ["champion", "previous"])
def test_an_alias_of_the_registrys_own_is_refused(params: dict[str, Any], alias: str) -> None:
    changed = override(params, [f"register.alias={alias}"])
    with pytest.raises(ConfigError, match=f"'{alias}' is for `cfmvc registry promote` to set"):
        section_of(changed, "register", RegisterConfig)


@pytest.mark.parametrize("name", ["cfmvc.v2", "cfmvc?", "cfmvc#2", "cf\tmvc"])
def test_a_name_that_mlflow_refuses_or_cannot_fetch_is_a_fault_of_the_file(
    params: dict[str, Any], name: str
) -> None:
    changed = params | {"register": params["register"] | {"name": name}}
    with pytest.raises(ConfigError, match=r"register\.name"):
        section_of(changed, "register", RegisterConfig)
