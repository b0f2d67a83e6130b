"""One champion at a time, each better than the one before, whoever is killed or races."""

import random
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Timer

import pytest

from cfmvc.errors import ConfigError, TrackingError
from cfmvc.registry.doctor import BROKEN, HEALTHY, MENDED, examine
from cfmvc.registry.entry import REFUSED
from cfmvc.registry.history import history_name, read_history
from cfmvc.registry.promote import Judgement, PromotionRefused, force, promote, roll_back
from cfmvc.registry.registry import Registry
from cfmvc.tracking.store import Store
from tests.forked import PROCESSES, forked
from tests.registry.a_promoter import (
    NAME,
    ByQuality,
    Overtaken,
    make_version,
    promote_and_die,
    quality_of,
    race_and_tell,
    registry_at,
)
from tests.registry.four_versions import aliases, registry, states

__all__ = ["registry"]  # the fixture

# Twenty rounds, every five of them about a model of its own: what a promoter reads grows with what
# was decided before, and four short histories take a quarter of the time of a long one.
N_PROMOTERS, N_MODELS, N_ROUNDS = 8, 4, 5


def test_the_better_one_becomes_champion_and_the_worse_one_is_told_why(registry: Registry) -> None:
    judge = ByQuality(registry)
    promote(registry, 2, judge)
    assert aliases(registry) == (2, None)
    with pytest.raises(PromotionRefused, match=r"quality 1\.0 against 2\.0"):
        promote(registry, 1, judge)
    promote(registry, 3, judge)
    assert aliases(registry) == (3, 2)
    with pytest.raises(PromotionRefused, match="version 3 is champion already"):
        promote(registry, 3, judge)
    kinds = [(e.kind, e.champion, e.version) for e in read_history(registry).entries]
    assert kinds == [("promoted", None, 2), ("refused", 2, 1), ("promoted", 2, 3)]
    assert states(registry) == {HEALTHY}


def test_rollback_goes_back_one_champion_at_a_time(registry: Registry) -> None:
    for version in (1, 2, 3):
        promote(registry, version, ByQuality(registry))
    roll_back(registry, "worse on new donors", {})
    assert aliases(registry) == (2, 1)
    roll_back(registry, "", {})
    assert aliases(registry) == (1, None)
    with pytest.raises(PromotionRefused, match="nothing to go back to: it replaced nobody"):
        roll_back(registry, "", {})
    promote(registry, 4, ByQuality(registry))
    assert aliases(registry) == (4, 1)
    assert len(read_history(registry).entries) == 6, "a rollback erases nothing"


def test_nobody_to_go_back_to(registry: Registry) -> None:
    with pytest.raises(PromotionRefused, match="there is no champion"):
        roll_back(registry, "", {})


def test_force_asks_nobody_and_is_written_down(registry: Registry) -> None:
    promote(registry, 3, ByQuality(registry))
    force(registry, 1, "the customer wants it", {"git_commit": "abc"})
    assert aliases(registry) == (1, 3)
    last = read_history(registry).entries[-1]
    assert (last.kind, last.why, last.evidence) == (
        "forced",
        "the customer wants it",
        {"git_commit": "abc", "bundle_sha256": registry.hashes()[1]},
    )
    assert "@" in last.who


def test_the_loser_of_a_race_is_told(registry: Registry) -> None:
    """Somebody else is promoted while the judge still looks."""

    def slow(candidate: int, champion: int | None):
        judgement = ByQuality(registry)(candidate, champion)
        promote(registry, 4, ByQuality(registry))
        return judgement

    with pytest.raises(PromotionRefused, match=r"the champion is version 4 now, and version 3 .*"):
        promote(registry, 3, slow)
    assert aliases(registry) == (4, None)
    history = read_history(registry)
    assert [history.had_effect(entry) for entry in history.entries] == [True, False]


def test_unknown_versions_are_named_with_those_that_are_there(registry: Registry) -> None:
    promote(registry, 2, ByQuality(registry))
    for called in ("2", "champion", "@champion", "models:/cfmvc/2", "models:/cfmvc@champion"):
        assert int(registry.version(called).version) == 2
    with pytest.raises(ConfigError, match="no such version; versions: '1', '2', '3', '4'"):
        registry.version("9")
    client = registry.store.client
    run_id = client.create_run(client.create_experiment("runs")).info.run_id
    with pytest.raises(ConfigError, match=f"{run_id}: is a run; it has registered no version"):
        registry.version(run_id)
    client.create_model_version(registry.name, "file:///nowhere", run_id)
    with pytest.raises(ConfigError, match=f"{run_id}: is a run; it has registered version '5'"):
        registry.version(run_id)


def test_the_doctor_mends_aliases_that_somebody_has_moved(registry: Registry) -> None:
    for version in (1, 2):
        promote(registry, version, ByQuality(registry))
    registry.point("champion", 4)
    registry.point("previous", None)
    assert states(registry) == {HEALTHY, MENDED}
    assert aliases(registry) == (2, 1)
    assert states(registry) == {HEALTHY}


def test_an_alias_set_by_hand_before_any_decision_is_not_removed(registry: Registry) -> None:
    registry.point("champion", 4)
    (broken,) = [finding.words for finding in examine(registry) if finding.state == BROKEN]
    assert broken == (
        "'champion' is version 4, and cfmvc-history has no decision that says so; write one down "
        'with `cfmvc registry promote 4 --force --why "..."`, or remove the alias in MLflow'
    )
    for decide in (
        lambda: promote(registry, 2, ByQuality(registry)),
        lambda: roll_back(registry, "", {}),
    ):
        with pytest.raises(TrackingError, match=r"'champion' is version 4.*nothing has changed"):
            decide()
    assert aliases(registry) == (4, None)
    force(registry, 4, "it is served", {})
    assert (aliases(registry), states(registry)) == ((4, None), {HEALTHY})


def test_rows_that_are_no_decisions_count_for_nothing_and_are_named(registry: Registry) -> None:
    client, log = registry.store.client, history_name(registry)
    client.create_registered_model(log)
    client.create_model_version(log, source="s3://by/hand")
    registry.point("champion", 4)
    with pytest.raises(TrackingError, match=r"'champion' is version 4.*nothing has changed"):
        promote(registry, 2, ByQuality(registry))
    registry.point("champion", None)
    for version in (2, 3):
        promote(registry, version, ByQuality(registry))
    assert aliases(registry) == (3, 2)
    assert states(registry) == {HEALTHY}
    assert any("version 1: made by hand" in finding.words for finding in examine(registry))
    client.set_model_version_tag(log, "3", "cfmvc.history.version", "²")
    assert read_history(registry).champion == 2
    broken = [finding.words for finding in examine(registry) if finding.state == BROKEN]
    (of_the_row,) = [words for words in broken if ", version 3: " in words]
    assert "was edited so that it is no decision" in of_the_row


def test_a_decision_waits_for_a_store_that_does_not_answer(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it takes to restart: tables that are away for a second, and then back."""
    promote(registry, 2, ByQuality(registry))
    file = Path(registry.store.uri.removeprefix("sqlite:///"))

    def rename(before: str, after: str) -> None:
        with closing(sqlite3.connect(file)) as database, database:
            database.execute(f"ALTER TABLE {before} RENAME TO {after}")

    def judge(candidate: int, champion: int | None) -> Judgement:
        judgement = ByQuality(registry)(candidate, champion)
        rename("model_versions", "away")
        Timer(1.0, rename, ("away", "model_versions")).start()
        return judgement

    promote(registry, 3, judge)
    assert aliases(registry) == (3, 2)


def test_overtaken_between_any_two_steps_it_says_so_or_is_compared_with_the_other(
    registry: Registry, workspace: Path
) -> None:
    """The first decision of all: until then there is neither a log nor an alias."""
    outcomes = set()
    for n_calls in range(100):
        shutil.copy(workspace / "mlflow.db", workspace / f"{n_calls}.db")
        other = registry_at(f"sqlite:///{workspace / f'{n_calls}.db'}", workspace)
        client = Overtaken(other.store.client, n_calls, lambda other=other: win(other, 3))
        slow = Registry(Store(client, other.store.uri, workspace), NAME)
        try:
            promote(slow, 2, ByQuality(slow))
            outcomes.add("promoted")
        except PromotionRefused as refusal:
            outcomes.add(str(refusal).split(":")[0])
        if not client.was_overtaken:
            break
        assert aliases(other)[0] == 3
        assert states(other) == {HEALTHY}
    assert n_calls > 5
    assert outcomes == {"promoted", "quality 2.0 against 3.0", "another promotion came first"}


def win(registry: Registry, version: int) -> None:
    promote(registry, version, ByQuality(registry))


@pytest.mark.slow
@pytest.mark.parametrize("version", [3, None], ids=["promotion", "rollback"])
def test_killed_between_any_two_steps_it_is_healthy_or_mended(
    registry: Registry, workspace: Path, version: int | None
) -> None:
    for earlier in (1, 2):
        promote(registry, earlier, ByQuality(registry))
    outcomes = set()
    for n_calls in range(100):
        folder = workspace / f"killed{n_calls}"
        folder.mkdir()
        shutil.copy(workspace / "mlflow.db", folder / "mlflow.db")
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        process = forked(promote_and_die, uri, folder, version, n_calls)
        process.start()
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        left = registry_at(uri, folder)
        assert states(left) <= {HEALTHY, MENDED}
        assert states(left) == {HEALTHY}
        outcomes.add(aliases(left))
        assert aliases(left) in ((2, 1), (3, 2) if version else (1, None))
        if process.exitcode == 0:
            break
        if version is not None and aliases(left) == (2, 1):
            promote(left, version, ByQuality(left))
            assert aliases(left) == (3, 2)
    assert process.exitcode == 0
    assert n_calls > 5
    assert len(outcomes) == 2, "killed before and after the decision"


@pytest.mark.slow
def test_eight_promoters_race_twenty_times(workspace: Path) -> None:
    expect_one_champion_at_a_time(f"sqlite:///{workspace / 'mlflow.db'}", workspace)


@pytest.mark.slow
def test_they_race_on_postgres(workspace: Path, postgres: str) -> None:
    expect_one_champion_at_a_time(postgres, workspace)


def expect_one_champion_at_a_time(
    uri: str, workspace: Path, n_models: int = N_MODELS, n_promoters: int = N_PROMOTERS
) -> None:
    rng, rounds = random.Random(), []
    registries = [registry_at(uri, workspace, f"raced-{n}") for n in range(n_models)]
    for raced in registries:
        raced.store.client.create_registered_model(raced.name)
        for n_round in range(N_ROUNDS):
            made = [make_version(raced, n_round + 3 * rng.random()) for _ in range(n_promoters)]
            rounds.append((raced.name, made))
    start, answers = PROCESSES.Barrier(n_promoters, timeout=60), PROCESSES.Queue()
    processes = [
        forked(race_and_tell, answers, number, uri, workspace, rounds, start, daemon=True)
        for number in range(n_promoters)
    ]
    for process in processes:
        process.start()
    told: dict[int, list[str]] = {}
    for _ in processes:
        number, answer = answers.get(timeout=200)
        assert isinstance(answer, list), f"promoter {number} has failed:\n{answer}"
        told[number] = answer
    for process in processes:
        process.join(60)
    said: dict[str, list[tuple[int, str]]] = {registry.name: [] for registry in registries}
    for n, (name, versions) in enumerate(rounds):
        said[name] += [(version, told[number][n]) for number, version in enumerate(versions)]
    n_late = 0
    for raced in registries:
        assert len(said[raced.name]) == n_promoters * N_ROUNDS
        n_late += expect_a_sound_history(raced, said[raced.name])
    assert n_late, "nobody was in anybody's way: this was no race"


def expect_a_sound_history(registry: Registry, said: list[tuple[int, str]]) -> int:
    """Hold a model's history against what its promoters were told; return how many came late."""
    history = read_history(registry)
    done = [entry for entry in history.entries if history.had_effect(entry)]
    assert {version for version, answer in said if answer == "promoted"} == {
        entry.version for entry in done
    }
    champion = None
    for entry in done:
        assert entry.champion == champion, "passed against the one that it replaced"
        best = -1.0 if champion is None else quality_of(registry, champion)
        assert quality_of(registry, entry.version) > best
        champion = entry.version
    assert aliases(registry) == (champion, done[-2].version)
    assert states(registry) == {HEALTHY}
    late = [answer for _, answer in said if "came first" in answer]
    refused = [entry for entry in history.entries if entry.kind == REFUSED]
    assert len(done) + len(late) + len(refused) == len(history.entries)
    return len(late)
