"""Profiles name what takes the time."""

import torch

from benchmarks.engine.profiling import imports_of, profile_of


def test_operators_are_listed_by_their_own_time() -> None:
    table = profile_of(lambda: torch.ones(300, 300) @ torch.ones(300, 300), 2)
    assert "ms a step without the profiler" in table
    assert "aten::mm" in table


def test_imports_are_listed_by_package() -> None:
    table = imports_of(["-c", "import unittest, email.mime.text"]).splitlines()
    shares = {line.split()[-1]: float(line.split()[0]) for line in table[2:]}
    assert "with the clock of imports" in table[0]
    assert {"unittest", "email"} <= set(shares)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
