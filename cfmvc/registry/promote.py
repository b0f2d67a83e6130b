"""A version becomes champion if the gate lets it, and goes back if somebody says why."""

import getpass
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from cfmvc.errors import CfmvcError
from cfmvc.registry.aliases import settle
from cfmvc.registry.history import (
    FORCED,
    PROMOTED,
    REFUSED,
    ROLLED_BACK,
    Entry,
    History,
    append,
    read_history,
)
from cfmvc.registry.registry import Registry


class PromotionRefused(CfmvcError):  # noqa: N818 - nothing went wrong
    """A version does not become champion; the message says why."""

    exit_code = 3


@dataclass(frozen=True)
class Judgement:
    """What the gate says of a candidate.

    Parameters
    ----------
    is_passed
        Whether it may become champion.
    reasons
        In words: why not, or what it is better than.
    evidence
        What that rests on, for the history.
    """

    is_passed: bool
    reasons: tuple[str, ...]
    evidence: dict[str, str] = field(default_factory=dict)


Judge = Callable[[int, int | None], Judgement]


def promote(registry: Registry, version: int, judge: Judge) -> Entry:
    """Make a version champion if it is judged better than the present one.

    Parameters
    ----------
    registry
        The model's versions.
    version
        Who is to become champion.
    judge
        Told the candidate and the champion (None: there is none); looks at both.

    Returns
    -------
    Entry
        The decision, as it is written down.

    Raises
    ------
    PromotionRefused
        If the judge refuses, if another promotion came first, or if it is champion already.
    """
    history = settle(registry)
    _expect_not_champion(history, version)
    judgement = judge(version, history.champion)
    kind = PROMOTED if judgement.is_passed else REFUSED
    entry = _decided(
        registry, kind, history, version, "; ".join(judgement.reasons), judgement.evidence
    )
    written = append(registry, entry)
    if not judgement.is_passed:
        raise PromotionRefused("\n".join(judgement.reasons))
    return _expect_effect(registry, written)


def force(registry: Registry, version: int, why: str, evidence: dict[str, str]) -> Entry:
    """Make a version champion without asking the gate; who did it, and why, is written down.

    Raises
    ------
    PromotionRefused
        If it is champion already, or another promotion came first.
    """
    history = read_history(registry)  # with none, it takes the place of an alias set by hand
    if history.is_begun:
        history = settle(registry)
    _expect_not_champion(history, version)
    return _expect_effect(
        registry, append(registry, _decided(registry, FORCED, history, version, why, evidence))
    )


def roll_back(registry: Registry, why: str, evidence: dict[str, str]) -> Entry:
    """Make the version champion that the present one replaced.

    Raises
    ------
    PromotionRefused
        If there is none, or another decision came first.
    """
    history = settle(registry)
    if history.previous is None:
        there = "there is no champion" if history.champion is None else "it replaced nobody"
        raise PromotionRefused(f"models:/{registry.name}: nothing to go back to: {there}")
    if history.previous not in registry.numbers():
        raise PromotionRefused(
            f"models:/{registry.name}: version {history.previous}, which the champion replaced, "
            "was deleted; promote another one"
        )
    entry = _decided(registry, ROLLED_BACK, history, history.previous, why, evidence)
    return _expect_effect(registry, append(registry, entry))


def person(registry: Registry) -> str:
    """Return who is at work: user and machine; first the server's user, where one logs in."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "unknown"
    here = f"{user}@{socket.gethostname()}"
    if not registry.store.is_server:
        return here
    from mlflow.utils.credentials import read_mlflow_creds

    login = read_mlflow_creds().username
    return f"{login} ({here})" if login else here


def _decided(
    registry: Registry,
    kind: str,
    history: History,
    version: int,
    why: str,
    evidence: dict[str, str],
) -> Entry:
    last = history.entries[-1] if history.entries else None
    return Entry(
        kind,
        history.champion,
        version,
        person(registry),
        why,
        evidence,
        after=0 if last is None else last.number,
        after_sha256="" if last is None else last.sha256,
    )


def _expect_not_champion(history: History, version: int) -> None:
    if history.champion == version:
        raise PromotionRefused(f"version {version} is champion already")


def _expect_effect(registry: Registry, entry: Entry) -> Entry:
    history = settle(registry)
    if not history.had_effect(entry):
        raise PromotionRefused(
            f"another promotion came first: the champion is version {history.champion} now, and "
            f"version {entry.version} was compared with "
            f"{'nobody' if entry.champion is None else f'version {entry.champion}'}. Nothing has "
            "changed; promote again to compare it with the present champion"
        )
    return entry
