"""A version becomes champion if the gate lets it, and goes back if somebody says why."""

import getpass
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cfmvc.errors import CfmvcError, TrackingError
from cfmvc.registry.aliases import lost_champion, settle
from cfmvc.registry.entry import FORCED, HASH, PROMOTED, REFUSED, ROLLED_BACK, Entry
from cfmvc.registry.history import History, append, history_name, read_history
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
        If the judge refuses, if another promotion came first, if it is champion already, or if the
        champion is not there any more.
    TrackingError
        If the history was edited.
    """
    history, there = _settled(registry), registry.hashes()
    if lost := lost_champion(history, there):  # minutes of work would come to nothing
        raise PromotionRefused(lost)
    _expect_not_champion(history, there, version)
    judgement = judge(version, history.champion)
    kind = PROMOTED if judgement.is_passed else REFUSED
    why, evidence = "; ".join(judgement.reasons), _with_hash(judgement.evidence, there, version)
    written = append(registry, _decided(registry, kind, history, version, why, evidence))
    if not judgement.is_passed:
        raise PromotionRefused("\n".join(judgement.reasons))
    return _expect_effect(registry, written)


def force(registry: Registry, version: int, why: str, evidence: dict[str, str]) -> Entry:
    """Make a version champion without asking the gate; who did it, and why, is written down.

    It is the way on where nobody can be compared with: the champion was deleted, an alias was set
    by hand before anything was decided, or the history was edited.

    Raises
    ------
    PromotionRefused
        If it is champion already, or another promotion came first.
    """
    history, there = read_history(registry), registry.hashes()
    if history.is_begun and not history.damaged():
        history = settle(registry)
    _expect_not_champion(history, there, version)
    evidence = _with_hash(evidence, there, version)
    return _expect_effect(
        registry, append(registry, _decided(registry, FORCED, history, version, why, evidence))
    )


def roll_back(registry: Registry, why: str, evidence: dict[str, str]) -> Entry:
    """Make the version champion that the present one replaced.

    Raises
    ------
    PromotionRefused
        If there is none, or another decision came first.
    TrackingError
        If the history was edited.
    """
    history, there = _settled(registry), registry.hashes()
    back = history.previous_by
    if back is None:
        nobody = "there is no champion" if history.champion is None else "it replaced nobody"
        raise PromotionRefused(f"models:/{registry.name}: nothing to go back to: {nobody}")
    if not back.is_among(there):
        raise PromotionRefused(
            f"models:/{registry.name}: version {back.version}, which the champion replaced, "
            "was deleted; promote another one"
        )
    evidence = _with_hash(evidence, there, back.version)
    entry = _decided(registry, ROLLED_BACK, history, back.version, why, evidence)
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


def _settled(registry: Registry) -> History:
    """Let the aliases follow the history, unless a row of it was edited or deleted."""
    if damaged := read_history(registry).damaged():
        numbers = ", ".join(map(str, damaged))
        raise TrackingError(
            f"{history_name(registry)}: version {numbers} was edited or deleted, so that who is "
            "champion is not known; `cfmvc registry doctor` says more. Nothing has changed; "
            '`cfmvc registry promote N --force --why "..."` decides without the gate'
        )
    return settle(registry)


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


def _with_hash(evidence: dict[str, str], there: Mapping[int, str], version: int) -> dict[str, str]:
    """Add the hash that the version had before anybody looked at it: that one is decided on."""
    return evidence | {HASH: there.get(version, "")}


def _expect_not_champion(history: History, there: Mapping[int, str], version: int) -> None:
    champion = history.champion_by
    if champion is not None and champion.version == version and champion.is_among(there):
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
