"""The errors that cfmvc raises on purpose; each message says what, where and what to do."""

import difflib
import signal
from collections.abc import Iterable


class CfmvcError(Exception):
    """Base of every error that a user is meant to read; the command line prints it bare."""

    exit_code = 1


class ConfigError(CfmvcError):
    """A parameter is missing, unknown or out of range."""

    exit_code = 2


class DataError(CfmvcError):
    """The data break the contract that training and prediction rest on."""

    exit_code = 2


class UnknownLabelError(DataError):
    """A perturbation, batch or cell type that the model was not trained on."""


class NonFiniteError(CfmvcError):
    """Too many updates in a row were vetoed for NaN or infinite values."""

    exit_code = 4


class TrackingError(CfmvcError):
    """The tracking store or the model registry cannot be reached or refuses."""

    exit_code = 5


class CheckpointError(CfmvcError):
    """A checkpoint cannot be written, or none of those on disk can be gone on from."""

    exit_code = 6


class NotYetError(TrackingError):
    """What a run hangs on is still to come."""


class BrokenChainError(CfmvcError):
    """A link between a registered model and what it came from does not hold."""

    exit_code = 7


class Preempted(CfmvcError):  # noqa: N818 - the run did nothing wrong
    """SIGTERM, or Ctrl-C, ended the training between two steps; exits with 128 + its number."""

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StoppedEarly(CfmvcError):  # noqa: N818 - stopped on purpose
    """A training that promises nothing is ended before its time."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest known name, or an empty string."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    near = difflib.get_close_matches(name.casefold(), list(by_folded), n=1, cutoff=0.6)
    return f" (did you mean '{by_folded[near[0]]}'?)" if near else ""


def listed(names: Iterable[object], most: int = 12) -> str:
    """Return the names, quoted and separated by commas, cut after ``most`` of them."""
    quoted = [f"'{name}'" for name in names]
    if len(quoted) <= most:
        return ", ".join(quoted)
    return ", ".join(quoted[:most]) + f", ... ({len(quoted)} in all)"
