"""Values of ``params.yaml`` and ``--set`` as a person writes them, above all labels."""

from typing import Any

import pytest

from cfmvc.config import default_params_file, override, parse_section, read_yaml
from cfmvc.data.config import DataConfig, SplitConfig
from cfmvc.errors import ConfigError


def data(**changes: Any) -> DataConfig:
    values = read_yaml(default_params_file())["data"] | changes
    return parse_section(DataConfig, values, "data")


def after(setting: str) -> Any:
    section, key = setting.partition("=")[0].split(".")
    return override(read_yaml(default_params_file()), [setting])[section][key]


def test_numbers_are_labels() -> None:
    assert data(control=0).control == "0"
    values = read_yaml(default_params_file())["split"]
    values["held_out"] = [{"perturbation": "A", "batch": 1}]
    split = parse_section(SplitConfig, values, "split")
    assert split.held_out == [{"perturbation": "A", "batch": "1"}]


def test_numbers_are_no_names_of_columns() -> None:
    with pytest.raises(ConfigError, match=r"data\.batch: Input should be a valid string"):
        data(batch=1)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("data.separator=", ""),
        ("data.separator=''", ""),
        ("data.separator=_", "_"),
        ("data.control=0", "0"),
        ("data.control=007", "007"),
        ("data.control=1e3", "1e3"),
        ("data.control=2020-01-01", "2020-01-01"),
        ("data.control=non-targeting", "non-targeting"),
        ("flow.lr=1e-3", 0.001),
        ("tracking.uri=", None),
        ("split.held_out=null", None),
        ("split.held_out=[{perturbation: A, batch: 1}]", [{"perturbation": "A", "batch": 1}]),
    ],
)
def test_a_setting_is_read_as_what_it_replaces(setting: str, value: Any) -> None:
    assert after(setting) == value
    assert type(after(setting)) is type(value)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("flow.lr=[1", "expected ',' or ']', but got '<stream end>'"),
        ("flow.lr=*x", "found undefined alias 'x'"),
        ("flow.lr=a: b: c", "mapping values are not allowed here"),
    ],
)
def test_a_setting_that_is_no_yaml_is_named(setting: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        after(setting)
    assert str(raised.value) == f"'{setting}': the value is not valid YAML: {problem}"
