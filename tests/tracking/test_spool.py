"""The spool: whole lines, whatever happens to the disk or the process."""

from pathlib import Path

import pytest

from cfmvc.tracking.spool import Acknowledged, RunHeader, Spool, spool_root, spools


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    header = RunHeader("u1", "vae", "sqlite:///x.db", "cfmvc", "elsewhere:1:1.0", 1000)
    return Spool.create(spool_root(tmp_path), header)


def values(spool: Spool, offset: int = 0) -> list[int]:
    return [record["n"] for records, _ in spool.pending(offset) for record in records]


def test_records_come_back_in_order_and_behind_an_offset(spool: Spool) -> None:
    for n in range(5):
        spool.append({"n": n})
    (_, offset), *_ = spool.pending(0)
    for n in range(5, 8):
        spool.append({"n": n})
    assert values(spool) == list(range(8))
    assert values(spool, offset) == [5, 6, 7]


def test_large_spools_come_in_chunks_that_lose_nothing(spool: Spool) -> None:
    for n in range(3000):
        spool.append({"n": n, "text": "x" * 300})
    chunks = list(spool.pending(0))
    assert len(chunks) > 2
    assert values(spool) == list(range(3000))
    assert values(spool, chunks[0][1]) == list(range(len(chunks[0][0]), 3000))


def test_a_line_cut_off_by_a_kill_waits_and_spoils_nothing(spool: Spool) -> None:
    spool.append({"n": 1})
    path = spool.folder / "events.jsonl"
    whole = path.stat().st_size
    with path.open("a") as stream:
        stream.write('{"n": 2, "te')
    assert [(len(records), end) for records, end in spool.pending(0)] == [(1, whole)]
    assert list(spool.pending(whole)) == []


def test_a_line_that_is_whole_only_after_a_look_is_not_lost(spool: Spool) -> None:
    path = spool.folder / "events.jsonl"
    path.write_text('{"n": 1}\n{"n": 2}\n{"n"')
    found: list[int] = []
    ends = [0]
    for records, end in spool.pending(0):
        found += [record["n"] for record in records]
        ends.append(end)
        with path.open("a") as stream:  # the writer goes on while these are sent
            stream.write(': 3}\n{"n": 4}\n')
    assert found + values(spool, ends[-1]) == [1, 2, 3, 4]


def test_a_full_disk_is_said_once_and_stops_nothing(
    spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    (spool.folder / "events.jsonl").symlink_to("/dev/full")
    for n in range(3):
        spool.append({"n": n})
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "No space left" in said


def test_a_line_that_a_full_disk_cut_short_does_not_swallow_the_next(spool: Spool) -> None:
    spool.append({"n": 1})
    with (spool.folder / "events.jsonl").open("a") as stream:
        stream.write('{"n": 2, "te')
    spool._is_torn = True  # what a short write leaves behind
    spool.append({"n": 3})
    assert values(spool) == [1, 3]


def test_what_was_acknowledged_is_remembered(spool: Spool) -> None:
    assert spool.acknowledged() == Acknowledged()
    state = Acknowledged(17, "r1", "sqlite:///x.db", 3)
    spool.acknowledge(state)
    reopened = Spool.open(spool.folder)
    assert reopened is not None
    assert reopened.acknowledged() == state
    assert reopened.header == spool.header


def test_remains_of_kills_are_cleared_or_passed_over(spool: Spool, tmp_path: Path) -> None:
    root = spool_root(tmp_path)
    (root / "u0").mkdir()  # killed before its header was written
    (root / "u2.done").mkdir()  # killed while it was deleted
    assert [found.header.uid for found in spools(tmp_path)] == ["u1"]
    assert not (root / "u2.done").exists()
    spool.remove()
    assert spools(tmp_path) == []
