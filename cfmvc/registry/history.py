"""Who was champion when, and why: a log that only grows, and that the champion follows from.

An alias of MLflow's is last-writer-wins: of two promotions at once neither would know of the other,
and one that is killed between two calls would leave half of itself. Here a promotion is one row,
written in one transaction: a version of a registered model ``NAME-history``, whose number the
database gives out once. The rows, in the order of their numbers, say who is champion; a row that
was decided against somebody who is champion no longer has no effect. The aliases follow from that,
and can be mended from it at any time.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from cfmvc.errors import TrackingError
from cfmvc.registry.registry import Registry
from cfmvc.tracking.access import denial
from cfmvc.tracking.store import first_line

PROMOTED, FORCED, REFUSED, ROLLED_BACK = "promoted", "forced", "refused", "rolled back"
HASH = "bundle_sha256"  # among the evidence
_TAG = "cfmvc.history."
_DESCRIPTION = (
    "Who was champion when, and why. Written by `cfmvc registry`; each version is one decision. "
    "Do not edit: `cfmvc registry doctor` finds it."
)
_LONGEST_TAG = 4000
_GIVE_UP_SECONDS = 60.0


@dataclass(frozen=True)
class Entry:
    """A decision.

    Parameters
    ----------
    kind
        ``promoted``, ``forced``, ``refused`` or ``rolled back``.
    champion
        The champion that it was decided against; None where there was none.
    version
        Who is promoted, refused, or gone back to.
    who, when, why
        A person, an ISO time in UTC, and words.
    evidence
        What it rests on: ``run_uid``, ``data_md5``, ``git_commit``, ``metrics``, and
        ``bundle_sha256`` of the version, which tells it from others that had its number.
    after, after_sha256
        Number and hash of the last decision that was known then: an edited one does not match.
    number
        Its place in the log; 0 before it is there.
    """

    kind: str
    champion: int | None
    version: int
    who: str
    why: str
    evidence: dict[str, str] = field(default_factory=dict)
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    after: int = 0
    after_sha256: str = ""
    uid: str = field(default_factory=lambda: uuid.uuid4().hex)
    number: int = 0

    @property
    def is_ours(self) -> bool:
        """Whether it was written as a decision at all; somebody may have made a version by hand."""
        return bool(self.kind)

    @property
    def is_decision(self) -> bool:
        """Whether it says what a decision says; not if somebody has made or edited it by hand."""
        return self.kind in (PROMOTED, FORCED, REFUSED, ROLLED_BACK) and self.version > 0

    def is_among(self, there: Mapping[int, str]) -> bool:
        """Return whether the very version that was decided on is there.

        Parameters
        ----------
        there
            Number and hash of the versions that are there. What decided in an older cfmvc names no
            hash, and means whatever has the number.
        """
        told = self.evidence.get(HASH)
        return self.version in there and told in (None, there[self.version])

    @property
    def tags(self) -> dict[str, str]:
        """What is written down."""
        values = {
            "kind": self.kind,
            "champion": "" if self.champion is None else str(self.champion),
            "version": str(self.version),
            "who": self.who,
            "why": self.why,
            "when": self.when,
            "after": str(self.after),
            "after_sha256": self.after_sha256,
            "uid": self.uid,
            **{f"evidence.{name}": value for name, value in self.evidence.items()},
        }
        return {f"{_TAG}{name}": value[:_LONGEST_TAG] for name, value in values.items()}

    @property
    def sha256(self) -> str:
        """Hash of all that is written down."""
        return hashlib.sha256(json.dumps(self.tags, sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, number: int, tags: Mapping[str, str]) -> "Entry":
        """Read an entry from the tags of its version."""
        values = {
            name.removeprefix(_TAG): value for name, value in tags.items() if name.startswith(_TAG)
        }
        evidence = {
            name.removeprefix("evidence."): value
            for name, value in values.items()
            if name.startswith("evidence.")
        }
        return cls(
            values.get("kind", ""),
            _number(values.get("champion", "")),
            _number(values.get("version", "")) or 0,
            values.get("who", ""),
            values.get("why", ""),
            evidence,
            values.get("when", ""),
            _number(values.get("after", "")) or 0,
            values.get("after_sha256", ""),
            values.get("uid", ""),
            number,
        )


@dataclass(frozen=True)
class History:
    """All decisions, and what follows from them.

    Parameters
    ----------
    entries
        In the order in which the store took them.
    """

    entries: tuple[Entry, ...]

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
        """Return the entries that are not what they were when a later one was written."""
        by_number = {entry.number: entry for entry in self.entries}
        known = {e.after: e.after_sha256 for e in self.entries if e.after_sha256}
        return [
            by_number[number]
            for number, sha256 in sorted(known.items())
            if number in by_number and by_number[number].sha256 != sha256
        ]

    def missing(self) -> list[int]:
        """Return the numbers of entries that are gone, as far as a later one shows."""
        numbers = {entry.number for entry in self.entries}
        return sorted(set(range(1, max(numbers, default=0) + 1)) - numbers)

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


def _number(text: str) -> int | None:
    """Return a number that was written down; None where there is none, or it was edited away."""
    return int(text) if text.isdecimal() else None


def history_name(registry: Registry) -> str:
    """Return the name of the registered model that holds a model's decisions."""
    return f"{registry.name}-history"


def read_history(registry: Registry) -> History:
    """Read all decisions."""
    found = registry.store.versions(f"name = '{history_name(registry)}'")
    entries = [Entry.read(int(version.version), version.tags) for version in found]
    return History(tuple(sorted(entries, key=lambda entry: entry.number)))


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
            registry.name, f"{_TAG}log", history_name(registry)
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
    deadline = time.monotonic() + _GIVE_UP_SECONDS
    pause = 0.05
    is_unsure = False
    while True:
        try:
            # Others write at the same time, or an answer was lost: it may be there already, and
            # nothing is written twice before that is known.
            if is_unsure and (written := _written(registry, entry)):
                return written
            is_unsure = False
            _ensure_log(registry)
            made = registry.store.client.create_model_version(
                history_name(registry),
                source=f"models:/{registry.name}/{entry.version}",
                tags=entry.tags,
                description=f"{entry.kind}: version {entry.version}. {entry.why}"[:_LONGEST_TAG],
            )
        except MlflowException as error:
            is_denied = denial(error) is not None
            if is_denied or time.monotonic() > deadline:
                what_now = (
                    "nothing has changed"
                    if is_denied
                    else "`cfmvc registry history` shows whether it was, when the store answers"
                )
                raise TrackingError(
                    f"the decision could not be written down: {first_line(error)}; {what_now}"
                ) from error
            is_unsure = True
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
        else:
            return Entry.read(int(made.version), entry.tags)


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
