"""What holds for every command: errors, help, and where options stand."""

import os
from pathlib import Path

from tests.cli.test_fit_predict import refusal
from tests.forked import ForkedModule


def test_options_before_a_command_that_would_not_hear_of_them_are_refused() -> None:
    said = refusal("benchmark", "--data", "cells.h5ad", "tasks")
    assert "--data: belongs behind the command" in said
    assert "benchmark tasks --data" in said
    assert "--study: belongs behind" in refusal("tune", "--study", "mine", "apply")


def test_a_reason_without_force_is_refused() -> None:
    assert "--why goes with --force" in refusal("registry", "promote", "--why", "it is better")


def test_command_line_prints_errors_bare_and_helps(tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        process = ForkedModule("cfmvc", words, tmp_path, os.environ, is_split=True)
        return process.wait(), *process.communicate()

    code, _, said = run("fit", str(tmp_path / "none.h5ad"), "--out", str(tmp_path / "m"))
    assert code == 2
    assert said.startswith("error: ")
    assert "no such file" in said
    assert "Traceback" not in said
    for command in ((), ("data",), ("fit",), ("predict",), ("simulate",), ("sync",), ("summary",)):
        code, helped, _ = run(*command, "--help")
        assert code == 0
        assert "Usage" in helped
