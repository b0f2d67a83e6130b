"""One line of the result: what was measured, on both sides, and the bar that it should meet."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Spread:
    """Median of the rounds, with the smallest and the largest."""

    median: float
    low: float
    high: float

    def text(self, unit: str = "", digits: int = 3) -> str:
        """Return ``12.3 ms (11.9 - 13.0)``."""
        middle, low, high = (f"{v:.{digits}g}" for v in (self.median, self.low, self.high))
        return f"{middle}{unit} ({low} - {high})"


@dataclass(frozen=True)
class Bar:
    """A limit, on the ratio or on our own figure."""

    limit: float
    kind: Literal["at_least", "at_most"]
    of: Literal["ratio", "ours"] = "ratio"
    unit: str = "x"

    def text(self) -> str:
        """Return ``>= 1.8x``."""
        return f"{'>=' if self.kind == 'at_least' else '<='} {self.limit:g}{self.unit}"

    def is_met(self, value: float) -> bool:
        """Return whether a value keeps the limit."""
        return value >= self.limit if self.kind == "at_least" else value <= self.limit


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    what
        What was measured, in words.
    ours, other
        Figures of both sides in ``unit``; None where there is none.
    unit
        Unit of both.
    other_name
        Who the other side is.
    ratio
        ``other / ours`` of each round.
    bar
        What the row should meet; None for a row that only informs.
    holds
        What must be true besides the bar (``validation loss equal or better``), by name.
    notes
        Everything else that a reader needs in order to trust the figures.
    missing
        Why nothing was measured.
    profile
        Where our side's time goes; given where the bar is missed.
    """

    what: str
    ours: Spread | None = None
    other: Spread | None = None
    unit: str = ""
    other_name: str = ""
    ratio: Spread | None = None
    bar: Bar | None = None
    holds: dict[str, bool] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    missing: str = ""
    profile: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the bar is met; None where there is none, or nothing was measured."""
        judged = None if self.bar is None else getattr(self, self.bar.of)
        if self.bar is None or judged is None:
            return None
        return self.bar.is_met(judged.median) and all(self.holds.values())

    def explained(self, profile: Callable[[], str]) -> "Row":
        """Return the row with a profile of our side, made only where the bar is missed."""
        return replace(self, profile=profile()) if self.is_met is False else self

    def as_json(self) -> dict[str, Any]:
        """Return plain values, with the verdict."""
        return {**asdict(self), "is_met": self.is_met}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Row":
        """Read what :meth:`as_json` gave."""
        known = {name: value for name, value in values.items() if name != "is_met"}
        for name in ("ours", "other", "ratio"):
            known[name] = None if known[name] is None else Spread(**known[name])
        known["bar"] = None if known["bar"] is None else Bar(**known["bar"])
        return cls(**known)
