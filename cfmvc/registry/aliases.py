"""The aliases ``champion`` and ``previous``, as they follow from the history."""

from cfmvc.registry.history import History, read_history
from cfmvc.registry.registry import CHAMPION, PREVIOUS, Registry

_MOST_ROUNDS = 50


def differences(registry: Registry, history: History) -> dict[str, tuple[int | None, int | None]]:
    """Return, by alias, where it points and where the history says it should, if that differs."""
    aliases = registry.aliases()
    wanted = {CHAMPION: history.champion, PREVIOUS: history.previous}
    return {
        alias: (aliases.get(alias), version)
        for alias, version in wanted.items()
        if aliases.get(alias) != version
    }


def settle(registry: Registry) -> History:
    """Let the aliases follow the history, and return it.

    Several processes may do so at once. Each looks again after it has written, and the last one to
    write sees all that was decided before: whoever comes late does not leave an older champion.
    """
    for _ in range(_MOST_ROUNDS):
        history = read_history(registry)
        wrong = differences(registry, history)
        if not wrong:
            return history
        for alias, (_, version) in wrong.items():
            registry.point(alias, version)
    raise AssertionError("the aliases of the registry change faster than they can be read")
