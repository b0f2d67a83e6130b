"""Whether the registry is as its history says, and mending it where it is not."""

from dataclasses import dataclass

from cfmvc.errors import TrackingError
from cfmvc.registry.aliases import Reading, differences, lost_champion, settle, undecided
from cfmvc.registry.entry import Entry
from cfmvc.registry.history import History, give_receipt, history_name
from cfmvc.registry.registry import Registry
from cfmvc.tracking.store import first_line

HEALTHY, MENDED, BROKEN = "healthy", "mended", "broken"


@dataclass(frozen=True)
class Finding:
    """What the doctor has looked at.

    Parameters
    ----------
    state
        ``healthy``, ``mended`` or ``broken``.
    words
        What it is, and what to do where it is broken.
    """

    state: str
    words: str


def examine(registry: Registry) -> list[Finding]:
    """Look at everything, mend what follows from the history, and say what was found."""
    read = Reading.of(registry)
    findings = _of_the_log(registry, read.history)
    if not read.history.damaged():  # else nobody knows who is champion
        findings += _of_the_champion(registry, read)
    if any(finding.state == BROKEN for finding in findings):
        return findings
    findings += [_with_receipt(registry, entry) for entry in read.history.without_receipt()]
    wrong = differences(registry, read)
    settle(registry)
    for alias, (found, wanted) in wrong.items():
        findings.append(
            Finding(
                MENDED,
                f"alias '{alias}' pointed to {_named(found)}, and the history says "
                f"{_named(wanted)}: now it does",
            )
        )
    if not wrong:
        findings.append(Finding(HEALTHY, "the aliases are those that the history says"))
    return findings


def _with_receipt(registry: Registry, entry: Entry) -> Finding:
    from mlflow.exceptions import MlflowException

    row = f"{history_name(registry)}, version {entry.number}"
    try:
        give_receipt(registry, entry)
    except MlflowException as error:
        raise TrackingError(
            f"{row}: its receipt was never written, and cannot be now: {first_line(error)}"
        ) from error
    return Finding(
        MENDED,
        f"{row}: whole, but whoever wrote it was stopped before its receipt: now it has one",
    )


def _of_the_log(registry: Registry, history: History) -> list[Finding]:
    name, edited, missing = history_name(registry), history.edited(), history.missing()
    findings = []
    for entry in history.entries:
        if entry.is_decision and entry in edited:
            words = (
                "edited after it was written; compare it with the run of its evidence "
                f"({entry.evidence.get('run_uid', 'none')})"
            )
        elif entry in edited or (entry.is_ours and not entry.is_decision):
            words = (
                "was edited so that it is no decision any more, and counts for nothing; restore it "
                "from a back-up of the tracking database"
            )
        else:
            continue
        findings.append(Finding(BROKEN, f"{name}, version {entry.number}: {words}"))
    if missing:
        numbers = ", ".join(map(str, missing))
        findings.append(
            Finding(
                BROKEN,
                f"{name}: version {numbers} deleted; who is champion may be wrong. Restore it from "
                "a back-up of the tracking database",
            )
        )
    n = sum(entry.is_ours for entry in history.entries)
    foreign = [
        Finding(HEALTHY, f"{name}, version {entry.number}: made by hand, and counts for nothing")
        for entry in history.entries
        if not entry.is_ours and entry not in edited
    ]
    whole = Finding(HEALTHY, f"{n} decision{'' if n == 1 else 's'}, none edited, none missing")
    return foreign + (findings or [whole])


def _of_the_champion(registry: Registry, read: Reading) -> list[Finding]:
    history, there = read.history, registry.hashes()
    wrong = undecided(registry, read), lost_champion(history, there)
    findings = [Finding(BROKEN, words) for words in wrong if words]
    if history.previous_by is not None and not history.previous_by.is_among(there):
        words = f"version {history.previous}, the champion before, was deleted: no way back to it"
        findings.append(Finding(HEALTHY, words))
    return findings


def _named(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"
