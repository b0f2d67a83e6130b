"""What was edited or deleted in the log of decisions is found, and is not acted on."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cfmvc.errors import TrackingError
from cfmvc.registry.doctor import BROKEN, HEALTHY, MENDED, examine
from cfmvc.registry.entry import Entry
from cfmvc.registry.history import History, history_name, read_history
from cfmvc.registry.promote import Judgement, PromotionRefused, force, promote, roll_back
from cfmvc.registry.registry import Registry
from tests.registry.a_promoter import (
    NAME,
    ByQuality,
    make_version,
)
from tests.registry.four_versions import aliases, registry, states

__all__ = ["registry"]  # the fixture


def test_the_doctor_finds_what_was_edited_or_deleted(registry: Registry) -> None:
    for version in (1, 2, 3):
        promote(registry, version, ByQuality(registry))
    client, log = registry.store.client, history_name(registry)
    client.set_model_version_tag(log, "2", "cfmvc.history.who", "nobody")
    broken = [f.words for f in examine(registry) if f.state == BROKEN]
    assert len(broken) == 1
    assert "cfmvc-history, version 2: edited" in broken[0]
    client.delete_model_version(log, "1")
    assert any("version 1 deleted" in finding.words for finding in examine(registry))


def test_a_last_row_that_was_edited_or_deleted_is_not_acted_on(registry: Registry) -> None:
    for version in (1, 2):
        promote(registry, version, ByQuality(registry))
    client, log = registry.store.client, history_name(registry)

    def expect_broken(words: str) -> None:
        broken = [finding.words for finding in examine(registry) if finding.state == BROKEN]
        assert len(broken) == 1
        assert words in broken[0]
        for decide in (
            lambda: promote(registry, 4, ByQuality(registry)),
            lambda: roll_back(registry, "", {}),
        ):
            with pytest.raises(TrackingError, match=r"2 was edited or deleted.*Nothing has chang"):
                decide()
        assert aliases(registry) == (2, 1)

    row = client.get_model_version(log, "2").tags
    client.set_model_version_tag(log, "2", "cfmvc.history.version", "3")
    expect_broken("version 2: edited after it was written")
    # the receipt alone tells of it as well
    client.delete_model_version_tag(log, "2", "cfmvc.history.sha256")
    expect_broken("version 2: edited after it was written")
    for tag in row.keys() - {"cfmvc.history.sha256"}:
        client.delete_model_version_tag(log, "2", tag)
    expect_broken("version 2: was edited so that it is no decision any more")
    for tag, value in row.items():
        client.set_model_version_tag(log, "2", tag, value)
    assert states(registry) == {HEALTHY}
    client.delete_model_version(log, "2")
    expect_broken("version 2 deleted")
    force(registry, 4, "it was compared by hand", {})
    assert aliases(registry)[0] == 4
    assert BROKEN in states(registry)
    client.rename_registered_model(log, f"{log}-of-before")
    force(registry, 4, "the history was edited", {})
    assert (aliases(registry), states(registry)) == ((4, None), {HEALTHY})


def test_a_row_without_its_receipt_gets_it_only_if_it_is_whole(registry: Registry) -> None:
    promote(registry, 1, ByQuality(registry))
    client, log = registry.store.client, history_name(registry)
    client.delete_registered_model_tag(log, "cfmvc.history.receipt.1")
    client.set_model_version_tag(log, "1", "cfmvc.history.version", "3")
    assert BROKEN in states(registry)
    assert read_history(registry).receipts == {}
    client.set_model_version_tag(log, "1", "cfmvc.history.version", "1")
    assert states(registry) == {HEALTHY, MENDED}
    assert states(registry) == {HEALTHY}
    assert read_history(registry).receipts == {1: read_history(registry).entries[0].sha256}


def test_a_decision_stands_without_its_receipt_which_comes_later(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database takes no tag of a registered model for a while."""
    monkeypatch.setattr("cfmvc.registry.history._GIVE_UP_SECONDS", 0.0)
    file = Path(registry.store.uri.removeprefix("sqlite:///"))

    def tell_the_database(statement: str) -> None:
        with closing(sqlite3.connect(file)) as database, database:
            database.execute(statement)

    tell_the_database(
        "CREATE TRIGGER busy BEFORE INSERT ON registered_model_tags "
        "BEGIN SELECT RAISE(ABORT, 'not now'); END"
    )
    promote(registry, 2, ByQuality(registry))
    assert aliases(registry) == (2, None)
    with pytest.raises(TrackingError, match="version 1: its receipt was never written, and cannot"):
        examine(registry)
    tell_the_database("DROP TRIGGER busy")
    assert states(registry) == {HEALTHY, MENDED}
    assert states(registry) == {HEALTHY}


def test_each_of_several_rows_after_the_same_one_has_its_say() -> None:
    first = Entry("refused", None, 1, "ada", "", number=1)
    after = {"after": 1, "after_sha256": first.sha256}
    rows = [Entry("promoted", None, v, "ada", "", number=v, **after) for v in (2, 3)]
    assert History((first, *rows)).edited() == []
    edited = replace(first, kind="forced")
    for number in (0, 1):
        agreeing = replace(rows[number], after_sha256=edited.sha256)
        told = History((edited, *rows[:number], agreeing, *rows[number + 1 :]))
        assert told.edited() == [edited]


def test_the_doctor_says_that_the_champion_was_deleted(registry: Registry) -> None:
    promote(registry, 2, ByQuality(registry))
    registry.store.client.delete_model_version(NAME, "2")
    broken = [f.words for f in examine(registry) if f.state == BROKEN]
    assert len(broken) == 1
    assert "version 2, the champion by the history, was deleted" in broken[0]
    force(registry, 3, "the other one is gone", {})
    assert aliases(registry) == (3, None)
    assert states(registry) == {HEALTHY}
    with pytest.raises(PromotionRefused, match="version 2, which the champion replaced, was del"):
        roll_back(registry, "", {})


def born_again(registry: Registry) -> int:
    """Delete the model in MLflow and register another one, of the number 1 again."""
    registry.store.client.delete_registered_model(NAME)
    registry.store.client.create_registered_model(NAME)
    return make_version(registry, -5.0)


def test_another_model_of_the_champions_number_is_not_champion(registry: Registry) -> None:
    promote(registry, 1, ByQuality(registry))
    assert born_again(registry) == 1
    for _ in range(2):
        (broken,) = [f.words for f in examine(registry) if f.state == BROKEN]
        assert "version 1, the champion by the history, is not the one that was decided" in broken
        assert aliases(registry) == (None, None)
    better = make_version(registry, 9.0)
    for version in (1, better):
        with pytest.raises(PromotionRefused, match="promote another one with --force"):
            promote(registry, version, ByQuality(registry))
    assert aliases(registry) == (None, None)
    assert len(read_history(registry).entries) == 1, "nobody was judged"
    force(registry, 1, "the old ones are gone", {})
    assert (aliases(registry), states(registry)) == ((1, None), {HEALTHY})
    promote(registry, better, ByQuality(registry))
    assert aliases(registry) == (better, 1)


def test_a_rollback_does_not_lead_to_another_model_of_the_same_number(registry: Registry) -> None:
    for version in (1, 2):
        promote(registry, version, ByQuality(registry))
    born_again(registry)
    force(registry, make_version(registry, 2.0), "the old ones are gone", {})
    assert aliases(registry) == (2, None)
    with pytest.raises(PromotionRefused, match="version 2, which the champion replaced, was del"):
        roll_back(registry, "", {})


def as_before(registry: Registry, entry: Entry) -> None:
    """Write a decision as an older cfmvc did: without hash and receipt."""
    client, log = registry.store.client, history_name(registry)
    client.create_registered_model(log)
    client.create_model_version(log, f"models:/{NAME}/{entry.version}", tags=entry.tags)


def test_rows_of_an_older_cfmvc_mean_whatever_has_the_number(registry: Registry) -> None:
    as_before(registry, Entry("promoted", None, 1, "ada", "better"))
    assert states(registry) == {HEALTHY, MENDED}
    born_again(registry)
    assert states(registry) == {HEALTHY, MENDED}
    assert aliases(registry) == (1, None)
    assert states(registry) == {HEALTHY}
    promote(registry, make_version(registry, 2.0), ByQuality(registry))
    assert (aliases(registry), states(registry)) == ((2, 1), {HEALTHY})


def test_the_champion_that_was_deleted_is_missed_before_anybody_is_judged(
    registry: Registry,
) -> None:
    for version in (1, 2):
        promote(registry, version, ByQuality(registry))
    registry.store.client.delete_model_version(NAME, "2")

    def judge(candidate: int, champion: int | None) -> Judgement:
        raise AssertionError("that takes minutes")

    with pytest.raises(PromotionRefused, match=r"was deleted; .*--force.*or go back with"):
        promote(registry, 3, judge)
    roll_back(registry, "the other one is gone", {})
    assert (aliases(registry), states(registry)) == ((1, None), {HEALTHY})
