"""The aliases ``champion`` and ``previous``, as they follow from the history."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from cfmvc.errors import TrackingError
from cfmvc.registry.config import CHAMPION, PREVIOUS
from cfmvc.registry.entry import HASH
from cfmvc.registry.history import History, history_name, read_history
from cfmvc.registry.registry import Registry
from cfmvc.registry.tags import BUNDLE_TAG
from cfmvc.tracking.access import denial
from cfmvc.tracking.store import first_line

_MOST_ROUNDS = 50
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Reading:
    """The aliases as they were, and all decisions, read after them.

    A decision is written down before its alias is set: in this order no alias is read without its
    decision, whoever promotes meanwhile.
    """

    aliases: dict[str, int]
    history: History

    @classmethod
    def of(cls, registry: Registry) -> "Reading":
        """Read both."""
        aliases = registry.aliases()
        return cls(aliases, read_history(registry))


def differences(registry: Registry, read: Reading) -> dict[str, tuple[int | None, int | None]]:
    """Return, by alias, where it points and where the history says it should, if that differs.

    Nothing can point to a version that was deleted, and nothing is to point to another one that
    has got its number since.
    """
    aliases, history, there = read.aliases, read.history, registry.hashes()
    by_history = {CHAMPION: history.champion_by, PREVIOUS: history.previous_by}
    wanted = {
        alias: entry.version if entry is not None and entry.is_among(there) else None
        for alias, entry in by_history.items()
    }
    return {
        alias: (aliases.get(alias), version)
        for alias, version in wanted.items()
        if aliases.get(alias) != version
    }


def lost_champion(history: History, there: Mapping[int, str]) -> str:
    """Say that the champion by the history is not there any more, and what to do; else nothing.

    Parameters
    ----------
    history
        All decisions.
    there
        Number and hash of the versions that are there.
    """
    champion, previous = history.champion_by, history.previous_by
    if champion is None or champion.is_among(there):
        return ""
    what = "was deleted"
    if champion.version in there:
        hashes = champion.evidence[HASH][:12], there[champion.version][:12] or "none"
        what = (
            f"is not the one that was decided on (sha256 {hashes[0]}) any more: it was deleted and "
            f"another one has its number, or its tag {BUNDLE_TAG} was edited ({hashes[1]})"
        )
    is_way_back = previous is not None and previous.is_among(there)
    back = ", or go back with `cfmvc registry rollback`" if is_way_back else ""
    return (
        f"version {champion.version}, the champion by the history, {what}; promote another one "
        f'with --force --why "...", for the gate has nobody to compare it with{back}'
    )


def undecided(registry: Registry, read: Reading) -> str:
    """Say what is wrong where an alias points somewhere and no decision was ever written down.

    Somebody has set it by hand, and serves it, or the history was lost: it is not ours to remove.
    """
    aliases = read.aliases
    set_by_hand = [alias for alias in (CHAMPION, PREVIOUS) if alias in aliases]
    if read.history.is_begun or not set_by_hand:
        return ""
    where = " and ".join(f"'{alias}' is version {aliases[alias]}" for alias in set_by_hand)
    return (
        f"{where}, and {history_name(registry)} has no decision that says so; write one down with "
        f'`cfmvc registry promote {aliases[set_by_hand[0]]} --force --why "..."`, or remove the '
        "alias in MLflow"
    )


def settle(registry: Registry) -> History:
    """Let the aliases follow the history, and return it.

    Several processes may do so at once. Each looks again after it has written, and the last one to
    write sees all that was decided before: whoever comes late does not leave an older champion.

    Raises
    ------
    TrackingError
        If the store does not let them be set, or they were set before anything was decided.
    """
    from mlflow.exceptions import MlflowException

    refusal: Exception | None = None
    for _ in range(_MOST_ROUNDS):
        read = Reading.of(registry)
        wrong = differences(registry, read)
        if words := undecided(registry, read):
            raise TrackingError(f"models:/{registry.name}: {words}; nothing has changed")
        if not wrong:
            return read.history
        for alias, (_, version) in wrong.items():
            try:
                registry.point(alias, version)
            except MlflowException as error:
                if denial(error) is not None:
                    raise TrackingError(f"models:/{registry.name}: {first_line(error)}") from error
                refusal = error  # another process has just set it, most likely
                time.sleep(_PAUSE_SECONDS)
    reason = "they change faster than they can be read" if refusal is None else first_line(refusal)
    raise TrackingError(
        f"models:/{registry.name}: the aliases cannot be set: {reason}; the decision itself is "
        "written down, and `cfmvc registry doctor` sets them later"
    ) from refusal
