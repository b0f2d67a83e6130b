"""A link of the chain from a registered model to what it came from, and the whole chain."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cfmvc.errors import BrokenChainError

State = Literal["ok", "broken", "not checked"]


class BrokenLinkError(Exception):
    """A link does not hold; the text says what, where and what to do."""


class UncheckedLinkError(Exception):
    """A link cannot be looked at from here; the text says why."""


@dataclass(frozen=True)
class Link:
    """One link.

    Parameters
    ----------
    name
        What is looked at.
    state
        ``ok``, ``broken``, or ``not checked``.
    detail
        What was found.
    """

    name: str
    state: State
    detail: str

    @classmethod
    def of(cls, name: str, check: Callable[[], str]) -> "Link":
        """Look at a link: ``check`` returns what it found, or raises one of the errors above."""
        try:
            return cls(name, "ok", check())
        except BrokenLinkError as error:
            return cls(name, "broken", str(error))
        except UncheckedLinkError as error:
            return cls(name, "not checked", str(error))


@dataclass(frozen=True)
class Chain:
    """All links, in the order of the chain.

    Parameters
    ----------
    what
        The version or the run, in words.
    links
        What was looked at.
    """

    what: str
    links: list[Link]

    @property
    def broken(self) -> Link | None:
        """The first link that does not hold, or None."""
        return next((link for link in self.links if link.state == "broken"), None)

    @property
    def verdict(self) -> str:
        """What was found, in a sentence."""
        if self.broken is not None:
            return f"broken at {self.broken.name}: {self.broken.detail}"
        proven = [link for link in self.links if link.state == "ok"]
        missing = [link for link in self.links if link.state == "not checked"]
        if not proven:
            return f"nothing is proven: {missing[0].detail}"
        verdict = f"the chain holds: {_links(len(proven))} proven"
        if missing:
            verdict += f", {len(missing)} not checked ({_reasons(missing)})"
        return verdict

    def expect_whole(self) -> None:
        """Raise where a link does not hold.

        Raises
        ------
        BrokenChainError
            It names the first one.
        """
        if self.broken is not None:
            raise BrokenChainError(f"{self.what}: {self.verdict}")

    def as_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return {
            "what": self.what,
            "holds": self.broken is None,
            "broken_at": None if self.broken is None else self.broken.name,
            "verdict": self.verdict,
            "links": [asdict(link) for link in self.links],
        }


def _links(number: int) -> str:
    return "1 link" if number == 1 else f"{number} links"


def _reasons(links: list[Link]) -> str:
    reasons = dict[str, list[str]]()
    for link in links:
        reasons.setdefault(link.detail, []).append(link.name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
