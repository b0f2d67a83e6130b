"""A stage for tests, run as a process: ``python -m tests.tracking.a_stage FOLDER NAME BEHAVIOUR``.

``finish``, ``fail``, ``exit3``; ``wait`` says ``ready`` and sleeps; ``two_halves`` logs half of its
figures, waits for the file ``go``, and logs the other half.
"""

import sys
import time
from pathlib import Path

from cfmvc.config import parse_section, read_yaml
from cfmvc.tracking import SpoolTracker, TrackingConfig, stage_run

N_STEPS = 100


def main() -> None:
    folder, name, behaviour = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    config = parse_section(
        TrackingConfig, read_yaml(folder / "params.yaml")["tracking"], "tracking"
    )
    with stage_run(name, folder, config) as tracker:
        behave(tracker, behaviour, folder)
        tracker.write_link(folder / f"{name}.json")


def behave(tracker: SpoolTracker, behaviour: str, folder: Path) -> None:
    tracker.log_params({"behaviour": behaviour})
    if behaviour == "two_halves":
        log_steps(tracker, range(N_STEPS // 2))
        tracker.log_event("nan", {"place": "encoder"}, step=3)
        print("half", flush=True)
        while not (folder / "go").exists():
            time.sleep(0.05)
        log_steps(tracker, range(N_STEPS // 2, N_STEPS))
        tracker.log_event("nan", {"place": "gradient"}, step=77)
    else:
        log_steps(tracker, range(5))
    if behaviour == "fail":
        raise RuntimeError("the flux capacitor is empty")
    if behaviour == "exit3":
        sys.exit(3)
    if behaviour == "wait":
        tracker.wait_for_run(60)
        print("ready", flush=True)
        time.sleep(600)


def log_steps(tracker: SpoolTracker, steps: range) -> None:
    for step in steps:
        tracker.log_metrics({"loss": 1 / (step + 1)}, step)


if __name__ == "__main__":
    main()
