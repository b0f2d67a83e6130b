"""Faults from outside: signals, damaged files, full and protected disks."""

import errno
import os
import signal

from benchmarks.soak.disks import (
    SmallDisk,
    can_mount,
    can_protect,
    limit_files,
    small_disk,
)
from benchmarks.soak.episode import Ended, Episode
from benchmarks.soak.process import Running, step_of

_CHECKPOINT_ERROR, _SIGTERM_CODE = 6, 143
_MOST_KILLS = 3


def kill(episode: Episode) -> None:
    """SIGKILL, again and again; each time it is started anew."""
    for _ in range(episode.rng.randint(1, _MOST_KILLS)):
        episode.kill(is_counted=True)
    episode.finish()


def terminate(episode: Episode) -> None:
    """SIGTERM: exit code 143 and a word within a training, SIGTERM's own end before or after."""
    for _ in range(episode.rng.randint(1, _MOST_KILLS)):
        ended = episode.struck(lambda process: process.send(signal.SIGTERM))
        if ended.code == 0:
            break
        within = ended.code == _SIGTERM_CODE and ended.says(
            "stopped by SIGTERM after step", "it goes on from its last checkpoint"
        )
        outside = ended.code in (_SIGTERM_CODE, -signal.SIGTERM) and ended.says()
        episode.right_error(within or outside, "SIGTERM", ended)
    episode.finish()


def truncate(episode: Episode) -> None:
    """Checkpoints cut at a random byte after a kill: the one before is taken, or it is said."""
    episode.kill(episode.place_in(episode.rng.choice(list(episode.steps))))
    there = sorted(episode.door.checkpoints.glob("*/step-*"), key=step_of, reverse=True)
    there = [path for path in there if path.parent == there[0].parent]
    cut = there if episode.rng.random() < 0.3 else there[:1]
    for path in cut:
        os.truncate(path, episode.rng.randrange(path.stat().st_size))
    if not cut:
        episode.finish()
        return
    episode.score.n_injected += 1
    ended, _ = episode.go()
    if len(cut) < len(there):
        episode.expect(ended.code == 0, "did not go on", ended)
        said = ended.says(f"{cut[0].name}", "going on from", "instead")
        # Of two stages in two processes, the second one's words are the last.
        episode.expect(said or episode.door.name == "stages", "passed over in silence", ended)
        episode.compare(ended)
        return
    is_right = ended.code == _CHECKPOINT_ERROR and ended.says("no checkpoint is whole")
    episode.right_error(is_right, "no checkpoint is whole", ended)
    episode.door.forget()
    episode.finish()


def full_disk(episode: Episode) -> None:
    """No byte is left for a checkpoint, from a random moment on; then there is room again."""
    if not can_mount():
        ended = episode.struck(limit_files)
        _judge(episode, ended, errno.EFBIG)
        episode.finish()
        return
    with small_disk(episode.door.checkpoints) as disk:
        ended = episode.struck(lambda process: process.waits(disk.fill))
        _judge(episode, ended, errno.ENOSPC)
        disk.empty()
        episode.finish()


def read_only(episode: Episode) -> None:
    """The folder of the checkpoints is protected from a random moment on; then no more."""
    if can_mount():
        with small_disk(episode.door.checkpoints) as disk:
            ended = episode.struck(lambda process: _protected(process, disk))
            _judge(episode, ended, errno.EROFS)
            disk.set_read_only(False)
            episode.finish()
    elif can_protect():
        folders = [episode.door.checkpoints / stage for stage in episode.steps]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        ended = episode.struck(lambda process: [folder.chmod(0o555) for folder in folders])
        _judge(episode, ended, errno.EACCES)
        for folder in folders:
            folder.chmod(0o755)
        episode.finish()
    else:
        episode.score.skipped.append("a read-only folder: root writes to it, and may not mount")


def _protected(process: Running, disk: SmallDisk) -> bool:
    return process.waits(lambda: disk.set_read_only(True))


def _judge(episode: Episode, ended: Ended, number: int) -> None:
    """Expect an error that names the reason; a training that was done before needs none."""
    if ended.code == 0:
        return
    reason = os.strerror(number)
    checkpoint = ended.code == _CHECKPOINT_ERROR and ended.says(reason) and _says_what_to_do(ended)
    other = ended.code == 1 and ended.says("error:", reason)
    episode.right_error(checkpoint or other, reason, ended)


def _says_what_to_do(ended: Ended) -> bool:
    choices = (
        "is still valid: make room, start again",
        "There is none before it. Make room",
        "Nothing was trained yet: make room",
    )
    return any(ended.says(choice) for choice in choices)
