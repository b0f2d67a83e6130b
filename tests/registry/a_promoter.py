"""Promoters as processes, with a judge that looks at a version's tag ``quality``."""

import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from cfmvc.registry.promote import Judgement, PromotionRefused, promote, roll_back
from cfmvc.registry.registry import Registry
from cfmvc.registry.tags import BUNDLE_TAG
from cfmvc.tracking.store import Store

NAME = "cfmvc"


def registry_at(uri: str, workspace: Path, name: str = NAME) -> Registry:
    return Registry(Store.connect(uri, workspace), name)


def make_version(registry: Registry, quality: float) -> int:
    tags = {"quality": str(quality), BUNDLE_TAG: uuid4().hex}
    made = registry.store.client.create_model_version(
        registry.name, source="s3://nowhere/model", tags=tags
    )
    return int(made.version)


def quality_of(registry: Registry, version: int) -> float:
    tags = registry.store.client.get_model_version(registry.name, str(version)).tags
    return float(tags["quality"])


class ByQuality:
    """Passes what is better than the champion; takes its time, as a real one does."""

    def __init__(self, registry: Registry, longest_seconds: float = 0.0) -> None:
        self.registry, self.longest_seconds = registry, longest_seconds

    def __call__(self, candidate: int, champion: int | None) -> Judgement:
        time.sleep(random.uniform(0, self.longest_seconds))
        own = quality_of(self.registry, candidate)
        best = -1.0 if champion is None else quality_of(self.registry, champion)
        words = f"quality {own} against {best}"
        return Judgement(own > best, (words,), {"run_uid": "abc"})


class Mortal:
    """A client that works, until before one of its calls the process is killed."""

    def __init__(self, client: Any, n_calls: int) -> None:
        self._client, self._left = client, n_calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1
            return method(*arguments, **named)

        return call


class Overtaken:
    """A client that lets somebody else at it before the call of a number, and only then."""

    def __init__(self, client: Any, n_calls: int, meanwhile: Callable[[], Any]) -> None:
        self._client, self._left, self._meanwhile = client, n_calls, meanwhile

    @property
    def was_overtaken(self) -> bool:
        """Whether there was a call of that number."""
        return self._left < 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == -1:
                self._meanwhile()
            return method(*arguments, **named)

        return call


def promote_and_die(uri: str, workspace: Path, version: int | None, n_calls: int) -> None:
    """Promote (None: roll back), and be killed before the call of that number."""
    store = Store.connect(uri, workspace)
    registry = Registry(Store(Mortal(store.client, n_calls), uri, store.home), NAME)
    if version is None:
        roll_back(registry, "worse than it looked", {})
    else:
        promote(registry, version, ByQuality(registry))


def race(
    uri: str, workspace: Path, number: int, rounds: list[tuple[str, list[int]]], start: Any
) -> list[str]:
    """Promote one version of a round's model, all promoters at once; return what each was told."""
    store = Store.connect(uri, workspace)
    answers = []
    for name, versions in rounds:
        registry = Registry(store, name)
        start.wait()
        try:
            promote(registry, versions[number], ByQuality(registry, 0.05))
            answers.append("promoted")
        except PromotionRefused as refusal:
            answers.append(str(refusal))
    return answers


def race_and_tell(
    answers: Any,
    number: int,
    uri: str,
    workspace: Path,
    rounds: list[tuple[str, list[int]]],
    start: Any,
) -> None:
    """Race, and put number and answers into the queue; an error goes there at once, as text."""
    try:
        answers.put((number, race(uri, workspace, number, rounds, start)))
    except Exception:
        answers.put((number, traceback.format_exc()))
        answers.close()
        answers.join_thread()  # before the others tell that nobody waits for them
        start.abort()
