"""Checkpoints: what was saved comes back bit for bit, and no fault leaves none to go on from."""

import json
import math
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from cfmvc.errors import CheckpointError
from cfmvc.training import checkpoint_file
from cfmvc.training.checkpoint import Checkpoint, Checkpoints, NoCheckpoints
from tests.conftest import PROJECT
from tests.forked import ForkedModule
from tests.training.a_saver import N_KILLS, checkpoint

SMALL = 10


def opened(folder: Path, fingerprint: str = "ours", n_kept: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder, fingerprint, every_seconds=3600, n_kept=n_kept)
    checkpoints.expect_writable()
    return checkpoints


def saved(folder: Path, *steps: int) -> Checkpoints:
    checkpoints = opened(folder)
    for step in steps:
        checkpoints.save(checkpoint(step, SMALL))
    return checkpoints


def files(folder: Path) -> list[Path]:
    """Return all that is in a folder, the newest checkpoint last."""
    return sorted(folder.iterdir())


def steps(folder: Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in files(folder)]


def run_saver(how: str, folder: Path) -> str:
    words = (how, str(folder))
    process = ForkedModule("tests.training.a_saver", words, PROJECT, os.environ, is_split=True)
    said, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")  # no damage to be told of either
    return said


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


TENSORS = {
    "float64": torch.tensor([math.pi, -0.0, math.nan, math.inf], dtype=torch.float64),
    "float32": torch.randn(3, 5),
    "float16": torch.randn(7).half(),
    "bfloat16": torch.randn(3, 3).bfloat16(),
    "int64": torch.tensor([2**62 + 1, -1]),
    "int32": torch.tensor([[1], [2]], dtype=torch.int32),
    "uint8": torch.get_rng_state(),
    "bool": torch.tensor([True, False, True]),
    "0-dim": torch.tensor(3),
    "empty": torch.empty(0, 4),
    "transposed": torch.arange(6).reshape(2, 3).T,
    "learning": torch.ones(3, requires_grad=True),
    "odd \u00e9 name/0": torch.zeros(1),
}


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    opened(tmp_path).save(Checkpoint(TENSORS, {"step": 1}))
    found = opened(tmp_path).latest()
    assert found is not None
    assert found.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert found.tensors[name].shape == tensor.shape
        assert bits(found.tensors[name]) == bits(tensor.detach()), name


def test_values_come_back_nan_and_infinity_included(tmp_path: Path) -> None:
    values = {
        "step": 7,
        "epoch": 2,
        "history": [{"loss": 0.1 + 0.2, "val_loss": math.nan}, {"loss": -math.inf}],
        "position": [1, None, True, 'text \u00e9 "quoted"'],
    }
    opened(tmp_path).save(Checkpoint({}, values))
    found = opened(tmp_path).latest()
    assert found is not None
    assert found.tensors == {}
    assert json.dumps(found.values) == json.dumps(values)  # NaN is not equal to itself


def test_other_readers_of_safetensors_open_the_file(tmp_path: Path) -> None:
    opened(tmp_path).save(Checkpoint(TENSORS, {"step": 1}))
    with safe_open(files(tmp_path)[0], "pt") as file:
        assert set(file.keys()) == {*TENSORS, "cfmvc.values", "cfmvc.checksum"}
        assert torch.equal(file.get_tensor("float32"), TENSORS["float32"])
        assert file.metadata().keys() == {"format", "fingerprint"}


def test_what_a_checkpoint_cannot_hold_is_refused(tmp_path: Path) -> None:
    for tensors, words in [
        ({"cfmvc.values": torch.zeros(1)}, "give the tensor another one"),
        ({"z": torch.zeros(1, dtype=torch.complex64)}, "'z': a checkpoint cannot hold"),
        ({"cfmvc.checksum": torch.zeros(1)}, "give the tensor another one"),
    ]:
        with pytest.raises(ValueError, match=words):
            opened(tmp_path).save(Checkpoint(tensors, {"step": 1}))
    assert files(tmp_path) == []


def test_the_newest_ones_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 30)
    assert steps(tmp_path) == [2, 30]
    found = opened(tmp_path).latest()
    assert found is not None
    assert found.step == 30


def test_one_is_due_after_a_while(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    assert not checkpoints.is_due()
    checkpoints._saved_at -= 3601
    assert checkpoints.is_due()
    checkpoints.save(checkpoint(1, SMALL))
    assert not checkpoints.is_due()


def test_a_training_that_starts_again_replaces_those_of_before(tmp_path: Path) -> None:
    saved(tmp_path, 10, 20)
    other = opened(tmp_path, "with another learning rate")
    assert other.latest() is None
    assert steps(tmp_path) == [10, 20]
    other.save(checkpoint(5, SMALL))
    assert steps(tmp_path) == [5]
    saved(tmp_path, 1)
    saved(tmp_path, 30)
    saved(tmp_path, 2)  # from the start, although it could have gone on
    assert steps(tmp_path) == [1, 2]


def test_clear_leaves_what_others_have_put_there(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "a", 1, 2)
    checkpoints.clear()
    assert not (tmp_path / "a").exists()
    checkpoints.clear()
    saved(tmp_path, 1)
    (tmp_path / "notes.txt").touch()
    opened(tmp_path).clear()
    assert [path.name for path in files(tmp_path)] == ["notes.txt"]


def test_no_checkpoints_keep_nothing() -> None:
    none = NoCheckpoints()
    none.expect_writable()
    none.save(checkpoint(1, SMALL))
    assert (none.is_due(), none.latest()) == (False, None)
    none.clear()


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    n_torn, last = map(int, run_saver("killed", tmp_path / "checkpoints").split())
    assert 0 < n_torn <= N_KILLS  # some were killed in the middle of a file
    assert last > 0
    checkpoints = Checkpoints(tmp_path / "checkpoints", "this training", every_seconds=0)
    checkpoints.expect_writable()
    assert list((tmp_path / "checkpoints").glob(".*")) == []


def test_temporary_files_of_the_living_stay(tmp_path: Path) -> None:
    host = os.uname().nodename
    ours, dead = tmp_path / f".a.{host}.{os.getpid()}.tmp", tmp_path / f".a.{host}.{2**22 + 1}.tmp"
    living, elsewhere = tmp_path / f".a.{host}.1.tmp", tmp_path / ".a.other-host.7.tmp"
    old = tmp_path / ".b.other-host.7.tmp"
    for path in (ours, dead, living, elsewhere, old):
        path.touch()
    os.utime(old, (0, 0))
    saved(tmp_path, 1)
    assert set(files(tmp_path)[:-1]) == {living, elsewhere}


CUTS = {
    "nothing left": lambda size: 0,
    "within the header's length": lambda size: 5,
    "behind the header's length": lambda size: 8,
    "within the header": lambda size: 300,
    "within the tensors": lambda size: size - 100,
    "within the checksum": lambda size: size - 7,
    "the last byte": lambda size: size - 1,
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_file_that_was_cut_off_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: Callable[[int], int]
) -> None:
    saved(tmp_path, 1, 2)
    newest = files(tmp_path)[-1]
    os.truncate(newest, cut(newest.stat().st_size))
    found = opened(tmp_path).latest()
    assert found is not None
    assert torch.equal(found.tensors["weights0"], torch.full((SMALL,), 1.0))
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"checkpoint {newest} ")
    assert "going on from step-000000000001" in said
    assert "(step 1) instead" in said


def test_a_cut_is_told_from_changed_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 1, 2)
    newest = files(tmp_path)[-1]
    size = newest.stat().st_size
    os.truncate(newest, size - 40)
    opened(tmp_path).latest()
    assert f"is cut off: {size - 40} of {size} bytes are there" in capsys.readouterr().err
    os.truncate(newest, size)  # the disk gives zeros for what is lost
    opened(tmp_path).latest()
    assert "its checksum does not fit" in capsys.readouterr().err


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    rng = random.Random(2)
    places = [*range(64), *rng.sample(range(len(whole)), 200), *range(len(whole) - 32, len(whole))]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        file.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="no checkpoint is whole"):
            opened(tmp_path).latest()
    file.write_bytes(whole)
    assert opened(tmp_path).latest() is not None


def test_a_long_history_does_not_make_a_header_that_nobody_reads(tmp_path: Path) -> None:
    values = {"history": "x" * 3_000_000}
    opened(tmp_path).expect_writable(0)
    opened(tmp_path).save(Checkpoint({"w": torch.ones(2)}, {"step": 1, **values}))
    (file,) = files(tmp_path)
    assert int.from_bytes(file.read_bytes()[:8], "little") < 1000
    found = opened(tmp_path).latest()
    assert found is not None
    assert found.values == {"step": 1, **values}
    assert list(found.tensors) == ["w"]


def test_only_damaged_ones_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    for file in files(tmp_path):
        os.truncate(file, 100)
    with pytest.raises(CheckpointError) as raised:
        opened(tmp_path).latest()
    said = str(raised.value)
    assert said.count("step-00000000000") == 2
    assert "to train from the start, remove the folder" in said
    assert raised.value.exit_code == 6


def test_a_damaged_one_is_not_kept_in_place_of_a_sound_one(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    os.truncate(files(tmp_path)[-1], 100)
    checkpoints = opened(tmp_path)
    checkpoints.latest()
    checkpoints.save(checkpoint(3, SMALL))
    assert steps(tmp_path) == [1, 3]


def test_one_of_another_training_is_used_by_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 1)
    other = opened(tmp_path, "another data set")
    assert other.latest() is None
    assert "not gone on from: data, parameters or code have changed" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="data, parameters or code have changed since"):
        other.latest(is_demanded=True)
    (file,) = files(tmp_path)
    file.rename(other._path(1))  # renamed by hand: the file itself knows better
    with pytest.raises(CheckpointError, match="data, parameters or code have changed since"):
        other.latest(is_demanded=True)


def test_one_of_another_format_is_used_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_file, "FORMAT", 99)
        saved(tmp_path, 1)
    assert opened(tmp_path).latest() is None
    with pytest.raises(CheckpointError, match=r"format 99, this cfmvc reads format 2"):
        opened(tmp_path).latest(is_demanded=True)


def test_none_at_all_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", "ours", 0).latest(is_demanded=True) is None


def test_a_file_that_may_not_get_that_large(tmp_path: Path) -> None:
    said = run_saver("limit", tmp_path)
    assert "the checkpoint of step 2 could not be written: File too large" in said
    assert "it needs 3.1 MB" in said
    assert f"The one of step 1 ({files(tmp_path)[0]}) is still valid" in said
    assert steps(tmp_path) == [1]  # and nothing temporary


@pytest.mark.parametrize("place", ["a file", "below a file", "/proc/cfmvc"])
def test_a_folder_that_cannot_be_made_is_said_before_the_training(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    below = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "x"}
    folder = below.get(place, Path(place))
    with pytest.raises(CheckpointError, match=f"^{folder}: checkpoints cannot be written there"):
        opened(folder)


def test_a_folder_that_has_vanished(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "a", 1)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(CheckpointError, match="No such file or directory") as raised:
        checkpoints.save(checkpoint(2, SMALL))
    assert "There is none before it" in str(raised.value)
    assert not (tmp_path / "a").exists()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here to make a small disk with")
    if done.returncode:
        pytest.skip(f"who runs these tests may not mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(mounted: Path) -> None:
    folder = mounted / "checkpoints"
    checkpoints = Checkpoints(folder, "ours", 0)
    checkpoints.expect_writable(n_bytes=500_000)
    with pytest.raises(CheckpointError, match=r"No space left on device.*needs 2\.0 MB, 1\.0 MB"):
        checkpoints.expect_writable(n_bytes=2_000_000)
    checkpoints.save(checkpoint(1, n_numbers=50_000))
    with pytest.raises(CheckpointError) as raised:
        checkpoints.save(checkpoint(2, n_numbers=50_000))
    said = str(raised.value)
    assert "step 2 could not be written: No space left on device; it needs 0.6 MB, 0.4 MB" in said
    assert f"The one of step 1 ({files(folder)[0]}) is still valid" in said
    assert steps(folder) == [1]
    found = checkpoints.latest()
    assert found is not None
    assert found.step == 1


def test_a_disk_that_became_read_only(mounted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = saved(mounted, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    with pytest.raises(CheckpointError, match=r"Read-only file system.*is still valid"):
        checkpoints.save(checkpoint(2, SMALL))
    with pytest.raises(CheckpointError, match="Nothing was trained yet"):
        opened(mounted)
    assert Checkpoints(mounted, "ours", 0).latest() is not None
    checkpoints.clear()
    assert capsys.readouterr().err == f"checkpoints in {mounted} stay: Read-only file system\n"
    assert steps(mounted) == [1]
