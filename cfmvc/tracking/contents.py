"""What a chunk of a spool's records amounts to, in names and lengths that MLflow takes."""

import re
from dataclasses import dataclass, field

from cfmvc.tracking.recorded import Point
from cfmvc.tracking.spool import Record

LONGEST_TAG = 5000
_LONGEST_PARAM, _LONGEST_KEY = 6000, 250
_FORBIDDEN = re.compile(r"[^\w.\-:/ ]")


@dataclass
class Contents:
    """A chunk of records, sorted by kind."""

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[Point] = field(default_factory=list)
    counts: set[str] = field(default_factory=set)
    artifacts: dict[tuple[str, str], None] = field(default_factory=dict)
    is_resumed: bool = False
    end: Record | None = None
    last_ms: int = 0

    @classmethod
    def of(cls, records: list[Record]) -> "Contents":
        """Sort records, which are in the order in which they were written."""
        contents = cls()
        for record in records:
            contents._add(record)
        return contents

    def _add(self, record: Record) -> None:
        self.last_ms = record["ms"]
        match record["kind"]:
            case "params":
                for name, value in record["values"].items():
                    self.params.setdefault(key(name), value[:_LONGEST_PARAM])
            case "tags":
                short = {key(n): value[:LONGEST_TAG] for n, value in record["values"].items()}
                self.tags.update(short)
            case "metrics":
                for name, value in record["values"].items():
                    self.metrics.append((key(name), value, record["ms"], record["step"]))
                if record.get("is_count"):
                    self.counts |= set(map(key, record["values"]))
            case "artifact":
                self.artifacts[record["file"], record["folder"]] = None
            case "resumed":
                self.is_resumed, self.end = True, None
            case "end":
                self.end = record


def key(name: str) -> str:
    """Return a name that MLflow takes: other characters than ``A-z 0-9 _ - . : / space`` go."""
    return _FORBIDDEN.sub("_", name)[:_LONGEST_KEY]
