"""Who was champion when, and why: a log that only grows, and that the champion follows from.

An alias of MLflow's is last-writer-wins: of two promotions at once neither would know of the other,
and one that is killed between two calls would leave half of itself. Here a promotion is one row,
written in one transaction: a version of a registered model ``NAME-history``, whose number the
database gives out once. The rows, in the order of their numbers, say who is champion; a row that
was decided against somebody who is champion no longer has no effect. The aliases follow from that,
and can be mended from it at any time.

What was edited or deleted shows: a row has its own hash and that of one before it, and once it is
there the registered model gets a receipt, a tag of its own with number and hash. Each row has its
own, so that of two at once neither takes the other's away; one that is killed before its receipt
leaves a whole row, and the doctor writes the receipt later.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeVar

from cfmvc.errors import TrackingError
from cfmvc.registry.entry import LONGEST_TAG, REFUSED, ROLLED_BACK, TAG, Entry
from cfmvc.registry.registry import Registry
from cfmvc.tracking.access import denial
from cfmvc.tracking.store import first_line

_DESCRIPTION = (
    "Who was champion when, and why. Written by `cfmvc registry`; each version is one decision. "
    "Do not edit: `cfmvc registry doctor` finds it."
)
_RECEIPT = f"{TAG}receipt."
_GIVE_UP_SECONDS = 60.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class History:
    """All decisions, and what follows from them.

    Parameters
    ----------
    entries
        In the order in which the store took them.
    receipts
        Number and hash of those that the log itself says it has.
    """

    entries: tuple[Entry, ...]
    receipts: Mapping[int, str] = field(default_factory=dict)

    @property
    def is_begun(self) -> bool:
        """Whether anything was ever decided."""
        return any(entry.is_ours for entry in self.entries)

    @property
    def champions(self) -> list[int]:
        """The champion last, before it the one that it replaced, and so on."""
        return [entry.version for entry in self._replayed[0]]

    @property
    def champion(self) -> int | None:
        """The version that is champion, or None."""
        return _version_of(self.champion_by)

    @property
    def previous(self) -> int | None:
        """The version that a rollback would go back to, or None."""
        return _version_of(self.previous_by)

    @property
    def champion_by(self) -> Entry | None:
        """The decision that made the champion one, or None."""
        return next(reversed(self._replayed[0]), None)

    @property
    def previous_by(self) -> Entry | None:
        """The decision that made the champion before this one."""
        crowned = self._replayed[0]
        return crowned[-2] if len(crowned) > 1 else None

    def had_effect(self, entry: Entry) -> bool:
        """Return whether a decision changed the champion: not if another one came before it."""
        return entry.number in self._replayed[1]

    def edited(self) -> list[Entry]:
        """Return the entries that are not what they were when they were written.

        All that was written down of an entry has to agree with it: its own hash, the receipt, and
        each of the later rows, of which several may have come after the same one.
        """
        told = [(e.after, e.after_sha256) for e in self.entries if e.after_sha256]
        told += [(e.number, e.own_sha256) for e in self.entries if e.own_sha256]
        told += self.receipts.items()
        found = {entry.number: entry.sha256 for entry in self.entries}
        wrong = {number for number, sha256 in told if found.get(number, sha256) != sha256}
        return [entry for entry in self.entries if entry.number in wrong]

    def missing(self) -> list[int]:
        """Return the numbers of entries that are gone, as far as a later one or a receipt shows."""
        numbers = {entry.number for entry in self.entries}
        expected = {*range(1, max(numbers, default=0)), *self.receipts}
        return sorted(expected - numbers)

    def damaged(self) -> list[int]:
        """Return the numbers of all that was edited or is gone."""
        return sorted({*self.missing(), *(entry.number for entry in self.edited())})

    def without_receipt(self) -> list[Entry]:
        """Return the entries whose receipt was never written; an older cfmvc wrote none."""
        return [e for e in self.entries if e.own_sha256 and e.number not in self.receipts]

    @cached_property
    def _replayed(self) -> tuple[list[Entry], set[int]]:
        """Return the decisions that made the champions, and the numbers of all with an effect."""
        crowned: list[Entry] = []
        effective: set[int] = set()
        for entry in self.entries:
            is_about_another = entry.champion != _version_of(next(reversed(crowned), None))
            if not entry.is_decision or is_about_another or entry.kind == REFUSED:
                continue
            if entry.kind == ROLLED_BACK:
                if len(crowned) < 2 or crowned[-2].version != entry.version:
                    continue
                crowned.pop()
            else:
                crowned.append(entry)
            effective.add(entry.number)
        return crowned, effective


def _version_of(entry: Entry | None) -> int | None:
    return None if entry is None else entry.version


def history_name(registry: Registry) -> str:
    """Return the name of the registered model that holds a model's decisions."""
    return f"{registry.name}-history"


def read_history(registry: Registry) -> History:
    """Read all decisions.

    A row comes before its receipt, so receipts are read first: none is without its row, whoever
    decides meanwhile.
    """
    its_name = f"name = '{history_name(registry)}'"
    logs = registry.store.client.search_registered_models(its_name)
    receipts = {
        int(tag.removeprefix(_RECEIPT)): sha256
        for log in logs
        for tag, sha256 in log.tags.items()
        if tag.startswith(_RECEIPT) and tag.removeprefix(_RECEIPT).isdecimal()
    }
    found = registry.store.versions(its_name)
    entries = [Entry.read(int(version.version), version.tags) for version in found]
    return History(tuple(sorted(entries, key=lambda entry: entry.number)), receipts)


def expect_may_decide(registry: Registry) -> None:
    """Raise unless this user may write to the model.

    MLflow lets everybody make a registered model, and makes it theirs: without this, who may only
    read would own the log of a model that has none yet, and decide who is champion.

    Raises
    ------
    TrackingError
        If the server does not let this user write. A database asks nobody.
    """
    from mlflow.exceptions import MlflowException

    if not registry.store.is_server:
        return
    try:
        registry.store.client.set_registered_model_tag(
            registry.name, f"{TAG}log", history_name(registry)
        )
    except MlflowException as error:
        if denial(error) is not None:
            raise TrackingError(
                f"models:/{registry.name}: who is champion is not for this user to decide: "
                f"{first_line(error)}; nothing has changed"
            ) from error


def append(registry: Registry, entry: Entry) -> Entry:
    """Write a decision down, in one step and once, and return it with its number.

    Raises
    ------
    TrackingError
        If the store does not take it in a minute, or not from this user.
    """
    from mlflow.exceptions import MlflowException

    expect_may_decide(registry)
    try:
        written = _until_taken(partial(_make_row, registry, entry))
    except MlflowException as error:
        what_now = (
            "`cfmvc registry history` shows whether it was, when the store answers"
            if denial(error) is None
            else "nothing has changed"
        )
        raise TrackingError(
            f"the decision could not be written down: {first_line(error)}; {what_now}"
        ) from error
    with suppress(MlflowException):  # the decision stands, and the doctor makes it good
        _until_taken(lambda _: give_receipt(registry, written))
    return written


def give_receipt(registry: Registry, entry: Entry) -> None:
    """Let the log itself say that it has an entry."""
    tag = f"{_RECEIPT}{entry.number}"
    registry.store.client.set_registered_model_tag(history_name(registry), tag, entry.sha256)


def _until_taken(step: Callable[[bool], _T]) -> _T:
    """Take a step until the store takes it, for a minute.

    Parameters
    ----------
    step
        Told whether it may have been taken already: others write at the same time, or an answer was
        lost.

    Raises
    ------
    MlflowException
        The last one; at once if this user may not do it.
    """
    from mlflow.exceptions import MlflowException

    deadline, pause, is_unsure = time.monotonic() + _GIVE_UP_SECONDS, 0.05, False
    while True:
        try:
            return step(is_unsure)
        except MlflowException as error:
            if denial(error) is not None or time.monotonic() > deadline:
                raise
            is_unsure = True
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


def _make_row(registry: Registry, entry: Entry, is_unsure: bool) -> Entry:
    """Make the row, unless it turns out to be there already: nothing is written twice."""
    if is_unsure and (written := _written(registry, entry)):
        return written
    _ensure_log(registry)
    made = registry.store.client.create_model_version(
        history_name(registry),
        source=f"models:/{registry.name}/{entry.version}",
        tags=entry.row,
        description=f"{entry.kind}: version {entry.version}. {entry.why}"[:LONGEST_TAG],
    )
    return Entry.read(int(made.version), entry.row)


def _written(registry: Registry, entry: Entry) -> Entry | None:
    return next((one for one in read_history(registry).entries if one.uid == entry.uid), None)


def _ensure_log(registry: Registry) -> None:
    from mlflow.exceptions import MlflowException

    name = history_name(registry)
    try:
        registry.store.client.create_registered_model(name, description=_DESCRIPTION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
