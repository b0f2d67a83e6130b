"""What every worker in an environment of its own does: one JSON line asks, one answers.

Imports nothing but the standard library, for it runs in those environments.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Answers = Callable[..., dict[str, Any]]


def answer_lines(start: Callable[..., tuple[dict[str, Any], Answers]]) -> None:
    """Answer the lines of stdin on stdout until there are no more.

    Parameters
    ----------
    start
        Called with the first line's values; returns its answer, and what answers the others.
    """
    # What the libraries print goes to stderr; the answers have the line to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(values: dict[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    first, answer = start(**json.loads(sys.stdin.readline()))
    tell(first)
    for line in sys.stdin:
        tell(answer(**json.loads(line)))
