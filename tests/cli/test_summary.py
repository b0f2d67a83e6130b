"""``cfmvc summary``: labels as they are, and commands that the shell knows."""

import sys
from pathlib import Path

import pytest

from cfmvc.cli.summarising import activation_command, print_summary

SPLIT = {"kind": "auto", "data": "data/raw/x.h5ad", "data_md5": "0" * 32}
REGISTERED = {"name": "cfmvc", "alias": "candidate", "version": 3}


def shown(capsys: pytest.CaptureFixture[str], label: str, uri: str = "sqlite:///mlflow.db") -> str:
    held_out = [{"perturbation": label, "cell_type": "T"}]
    result = {"split": {**SPLIT, "held_out": held_out}, "table": "the table\n"}
    result["registered"] = {**REGISTERED, "tracking_uri": uri}
    print_summary(result, Path())
    return capsys.readouterr().out


@pytest.mark.parametrize("label", ["5-[methyl]-uracil", "Drug[/x]", "[red]", ":smile:", "x" * 200])
def test_labels_are_printed_as_they_are(capsys: pytest.CaptureFixture[str], label: str) -> None:
    assert f"held out    {label} x T\n" in shown(capsys, label)


def test_the_store_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db " in shown(capsys, "A")
    of_a_server = shown(capsys, "A", "https://runs.example.org")
    assert "https://runs.example.org   runs" in of_a_server
    assert "mlflow ui" not in of_a_server


def test_commands_for_another_folder_name_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {"split": {**SPLIT, "held_out": []}, "table": "the table\n"}
    registered = {**REGISTERED, "alias": "staging", "tracking_uri": "sqlite:///mlflow.db"}
    print_summary(result | {"registered": registered}, tmp_path)
    said = capsys.readouterr().out
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db " in said
    assert f"cfmvc registry promote staging --project {tmp_path} " in said


def test_an_environment_that_is_not_active_says_how_to_activate_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = tmp_path / ".venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "activate").touch()
    monkeypatch.setattr(sys, "prefix", str(environment))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "another"))
    assert "source .venv/bin/activate   first" in shown(capsys, "A")
    monkeypatch.chdir("/")
    assert str(activation_command()).startswith("source ")
    assert str(activation_command()).endswith(".venv/bin/activate")
    monkeypatch.setenv("VIRTUAL_ENV", str(environment))
    assert activation_command() is None
    assert "activate" not in shown(capsys, "A")
