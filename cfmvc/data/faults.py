"""What is wrong with a data set, in words that a person can act on."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cfmvc.errors import DataError


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a file.

    Parameters
    ----------
    severity
        ``error`` if the cells cannot be used as they are, ``warning`` if they can.
    where
        The place, as the user would write it: ``layers['counts']``, ``obs['batch']``.
    message
        What is wrong, with numbers.
    n_cells
        Number of cells concerned, where cells are.
    example
        The first place where it shows.
    remedy
        What to do.
    """

    severity: Literal["error", "warning"]
    where: str
    message: str
    n_cells: int | None = None
    example: str | None = None
    remedy: str = ""

    def __str__(self) -> str:
        example = f" (first: {self.example})" if self.example else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.where}: {self.message}{example}{remedy}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def errors_of(faults: Iterable[Fault]) -> list[Fault]:
    """Return the faults that forbid the use of the file."""
    return [fault for fault in faults if fault.severity == "error"]


def raise_errors(faults: Iterable[Fault], what: str) -> None:
    """Raise one :class:`DataError` that names every error among the faults."""
    errors = errors_of(faults)
    if errors:
        number = "1 fault" if len(errors) == 1 else f"{len(errors)} faults"
        raise DataError("\n".join([f"{what}: {number}", *(f"- {fault}" for fault in errors)]))
