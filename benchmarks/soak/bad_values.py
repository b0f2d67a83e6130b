"""Faults from within: NaN among the counts, and learning rates that explode."""

import json
import re
import signal

import torch
from safetensors.torch import load

from benchmarks.soak.cells import write_params
from benchmarks.soak.episode import Ended, Episode

_NON_FINITE, _CHECKPOINT_ERROR = 4, 6
EXPLODING = 1e6


def nan_cells(episode: Episode) -> None:
    """NaN in a few cells: exactly their steps are vetoed, also in a training that is killed."""
    episode.score.n_injected += 1
    episode.kill()
    ended = episode.finish()
    vetoed = episode.base.vetoed_steps(episode.spoilt)
    told = json.loads(episode.door.outputs()["results/train_vae.json"])
    found = (told["nan_steps"], told["first_nan_step"])
    episode.expect(
        found == (len(vetoed), vetoed[0]), f"vetoed {found}, not the steps {vetoed}", ended
    )
    _expect_finite(episode, ended)


def nan_everywhere(episode: Episode) -> None:
    """NaN in every cell: there is nothing to learn from, and no model."""
    episode.score.n_injected += 1
    episode.kill()
    _expect_same_end(episode, episode.go()[0])


def exploding_rate(episode: Episode) -> None:
    """A learning rate of a million: no model that is not finite, killed in between or not."""
    episode.score.n_injected += 1
    episode.kill()
    _expect_same_end(episode, episode.go()[0])


def exploding_for_a_while(episode: Episode) -> None:
    """The same, until somebody stops it and corrects the rate; nothing of it may stay."""
    wrong, right = {**episode.changed, "vae.lr": EXPLODING}, episode.changed
    write_params(episode.folder, episode.base.plan.params() | wrong)
    place = episode.place_in("train_vae")
    ended = episode.struck(lambda process: process.send(signal.SIGKILL), place, is_counted=False)
    episode.score.n_injected += 1
    if ended.code == _NON_FINITE:
        episode.right_error(_is_named(ended), "updates that are not finite", ended)
    else:
        episode.expect(ended.code == -signal.SIGKILL, "neither killed nor given up", ended)
    write_params(episode.folder, episode.base.plan.params() | right)
    ended, _ = episode.go()
    if ended.code:  # asked to go on (--resume), it says why it cannot
        is_right = ended.code == _CHECKPOINT_ERROR and ended.says(
            "data, parameters or code have changed since", "without --resume"
        )
        episode.right_error(is_right, "parameters have changed", ended)
        episode.door.forget()
    episode.finish()


def _expect_same_end(episode: Episode, ended: Ended) -> None:
    """Expect what the undisturbed training gave: a finite model, or the same error."""
    expected = episode.expected.ended
    if ended.code == 0 and expected.code == 0:
        episode.compare(ended)
        _expect_finite(episode, ended)
        return
    is_same = ended.code == expected.code and ended.last_line == expected.last_line
    is_right = is_same and ended.code == _NON_FINITE and _is_named(ended)
    episode.right_error(is_right, f"{expected.code}: {expected.last_line}", ended)
    episode.score.n_steps += _steps_done(ended)
    made = [path for path in episode.door.outputs() if path.endswith(".safetensors")]
    unfinished = [path for path in made if not path.startswith("models/vae/")]
    episode.expect(not unfinished, f"an error, and yet a model: {made}", ended)


def _steps_done(ended: Ended) -> int:
    """Return how far a training came that has given up, from its error."""
    found = re.search(r"step (\d+)", ended.last_line)
    return int(found.group(1)) + 1 if found else 0


def _is_named(ended: Ended) -> bool:
    """Return whether the error says what was vetoed, or how often the training went back."""
    vetoed = ended.says("updates in a row were not finite and were vetoed, the last at step")
    return vetoed or ended.says("and halved the learning rate each time")


def _expect_finite(episode: Episode, ended: Ended) -> None:
    for path, data in episode.door.outputs().items():
        if path.endswith("weights.safetensors"):
            bad = [n for n, tensor in load(data).items() if not bool(torch.isfinite(tensor).all())]
            episode.expect(not bad, f"{path}: not finite: {bad}", ended)
