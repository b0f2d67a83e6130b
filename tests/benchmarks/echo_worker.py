"""A worker that answers with what it was asked, and prints in between."""

import os
from typing import Any

from benchmarks.reference.answering import Answers, answer_lines


def start(**values: Any) -> tuple[dict[str, Any], Answers]:
    print("this is no answer")
    return {"started_with": values}, answer


def answer(**values: Any) -> dict[str, Any]:
    os.write(1, b"nor is this\n")
    if "end" in values:
        os._exit(values["end"])
    return {"answer_to": values}


if __name__ == "__main__":
    answer_lines(start)
