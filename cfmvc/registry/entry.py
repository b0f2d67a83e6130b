"""A decision: a row of the log, as it is written down and read again."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

PROMOTED, FORCED, REFUSED, ROLLED_BACK = "promoted", "forced", "refused", "rolled back"
HASH = "bundle_sha256"  # among the evidence
TAG = "cfmvc.history."
LONGEST_TAG = 4000
_OWN_TAG = f"{TAG}sha256"


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
    own_sha256
        The hash that was written down with it; an older cfmvc wrote none.
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
    own_sha256: str = ""

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
        """What it says."""
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
        return {f"{TAG}{name}": value[:LONGEST_TAG] for name, value in values.items()}

    @property
    def sha256(self) -> str:
        """Hash of all that it says."""
        return hashlib.sha256(json.dumps(self.tags, sort_keys=True).encode()).hexdigest()

    @property
    def row(self) -> dict[str, str]:
        """What is written down: all that it says, and the hash of it."""
        return self.tags | {_OWN_TAG: self.sha256}

    @classmethod
    def read(cls, number: int, tags: Mapping[str, str]) -> "Entry":
        """Read an entry from the tags of its version."""
        values = {
            name.removeprefix(TAG): value for name, value in tags.items() if name.startswith(TAG)
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
            tags.get(_OWN_TAG, ""),
        )


def _number(text: str) -> int | None:
    """Return a number that was written down; None where there is none, or it was edited away."""
    return int(text) if text.isdecimal() else None
