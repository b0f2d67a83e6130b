"""A process in an environment of its own that is asked in JSON lines, and answers in them."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


class Asked:
    """The other side's process.

    Parameters
    ----------
    process
        Answers each line with one (``benchmarks.reference.answering``).
    name
        For the error when it ends.
    """

    def __init__(self, process: "subprocess.Popen[str]", name: str) -> None:
        self._process, self._name = process, name

    def ask(self, **values: Any) -> dict[str, Any]:
        """Send a line, and return the answer's."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"the {self._name} worker ended with {self._process.wait()}")
        return dict(json.loads(line))


@contextmanager
def asked(python: Path, module: str, name: str) -> Iterator[Asked]:
    """Start a module of this project with another Python; it is killed at the end.

    Parameters
    ----------
    python
        Of the environment.
    module
        What is run.
    name
        Of the other side.
    """
    process = subprocess.Popen(
        [str(python), "-m", module],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "TQDM_DISABLE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Asked(process, name)
    finally:
        process.kill()
        process.communicate()
