"""Kill -9 in stages at random moments: `dvc repro` again gives the same outputs."""

import os
import random
import signal
import time

import psutil
import pytest

from tests.pipelines.conftest import SMALL, STAGES, Project, new_project, stages_run

VICTIMS = ("everything", "the stage alone", "dvc alone")
TRAININGS = {"train_vae", "train_flow"}


def kill(project: Project, stage: str, victim: str, rng: random.Random) -> None:
    """Start a stage, and kill a part of what runs at a random moment."""
    process = project.start("dvc", "repro", stage)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if workers := working(process.pid, stage):
            break
        time.sleep(0.1)  # a look goes through all processes there are
    else:
        workers = []
    time.sleep(rng.uniform(0.0, 3.0))
    if victim == "everything":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        for worker in workers if victim == "the stage alone" else [psutil.Process(process.pid)]:
            if worker.is_running():
                worker.kill()
    process.communicate(timeout=120)


def working(dvc_pid: int, stage: str) -> list[psutil.Process]:
    """Return the processes of a stage below dvc."""
    try:
        children = psutil.Process(dvc_pid).children(recursive=True)
        return [c for c in children if f"pipelines.{stage}" in " ".join(c.cmdline())]
    except psutil.Error:
        return []


@pytest.mark.slow
def test_killed_and_repeated_gives_the_same_outputs(
    built: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The repetition after a kill is the beginning of the next one, as a user would have it.

    Both trainings are hit, and two of the other stages, other ones each time.
    """
    seed = int(os.environ.get("CFMVC_TEST_SEED") or random.randrange(1_000_000))
    print(f"CFMVC_TEST_SEED={seed}")
    rng = random.Random(seed)
    project = new_project(tmp_path_factory.mktemp("killed"), SMALL)
    others = rng.sample([stage for stage in STAGES if stage not in TRAININGS], k=2)
    hit = [stage for stage in STAGES if stage in TRAININGS.union(others)]
    for stage, victim in zip(hit, rng.sample(VICTIMS * 2, k=len(hit)), strict=True):
        print(f"{victim} in {stage}")
        kill(project, stage, victim, rng)
    project.run("dvc", "repro")
    assert stages_run(project.run("dvc", "repro")) == []
    assert project.outs() == built.outs()
    leftovers = [p for p in (project.folder / "results").rglob(".*") if p.is_file()]
    assert leftovers == []
