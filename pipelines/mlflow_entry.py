"""What ``mlflow run . [-e ENTRY] [-P section.key=value ...]`` runs.

Without parameters: ``dvc repro ENTRY`` in this folder. With parameters: a DVC experiment in a
folder of its own, so that neither ``params.yaml`` nor the results here change; its runs, metrics
and models are in MLflow, and ``dvc exp show`` lists it. The entry ``tune`` takes the options of
``cfmvc tune`` as well (``-P n_trials=20``), and is no experiment: its study is kept.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from cfmvc.config import override, read_yaml
from cfmvc.errors import CfmvcError
from cfmvc.tracking.config import absolute_uri, without_password

_POLL_SECONDS = 0.1
_STUDY = "tune"
# What `cfmvc tune` is told of its switches.
_SWITCHES = {
    "test": {"true": ["--test"], "false": ["--no-test"]},
    "no-test": {"true": ["--no-test"], "false": ["--test"]},
    "register": {"true": ["--register"], "false": []},
    "promote": {"true": ["--promote"], "false": []},
    "json": {"true": ["--json"], "false": []},
}
_SIGNATURE = {"name": "cfmvc", "email": "cfmvc@localhost"}


def main() -> None:
    entry, *options = sys.argv[1:]
    try:
        settings = as_settings(options)
        of_study = [setting for setting in settings if entry == _STUDY and _is_bare(setting)]
        settings = [setting for setting in settings if setting not in of_study]
        params = override(read_yaml(Path("params.yaml")), settings)
    except CfmvcError as error:
        sys.exit(f"error: {error}")
    warn_of_another_store(params)
    # The store's address must hold in the experiment's folder as well.
    os.environ["MLFLOW_TRACKING_URI"] = absolute_uri(os.environ.get("MLFLOW_TRACKING_URI"))
    command = [sys.executable, "-m", "dvc"]
    if entry == _STUDY and (of_study or settings):
        command = [sys.executable, "-m", "cfmvc", "tune", *as_options(of_study)]
        command += [part for setting in settings for part in ("--set", setting)]
    elif settings:
        changes = [part for setting in settings for part in ("--set-param", setting)]
        command += ["exp", "run", "--temp", *changes, entry]
        sign_experiments()
    else:
        command += ["repro", entry]
    sys.exit(run_to_its_end(command))


def warn_of_another_store(params: dict[str, Any]) -> None:
    """Say where the runs go if that is not where ``tracking.uri`` says: MLflow's own goes first."""
    asked = (params.get("tracking") or {}).get("uri")
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if asked and given and absolute_uri(asked) != absolute_uri(given):
        print(
            f"warning: `mlflow run` keeps its runs in {without_password(given)}, and so go these, "
            f"and the model; tracking.uri is {without_password(asked)}: to have all of them there, "
            "export MLFLOW_TRACKING_URI with that address",
            file=sys.stderr,
        )


def sign_experiments() -> None:
    """Give git a name for the commits of experiments, where nobody has told it one.

    DVC keeps an experiment as commits outside of all branches, and makes none without a name.
    """
    for key in ("name", "email"):
        known = subprocess.run(["git", "config", f"user.{key}"], capture_output=True, check=False)
        if known.returncode:
            for role in ("AUTHOR", "COMMITTER"):
                os.environ.setdefault(f"GIT_{role}_{key.upper()}", _SIGNATURE[key])


def run_to_its_end(command: list[str]) -> int:
    """Run DVC in a process group of its own, and return its exit code.

    A signal to this process goes to the whole group: told alone, this process would leave DVC, and
    DVC its stage, at work under a run that MLflow has closed already. They are waited for.
    """
    stop = _Stop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup, or a script's background job
            signal.signal(number, stop)
    dvc = subprocess.Popen(command, start_new_session=True)
    stop.begin(dvc.pid)
    code = dvc.wait()
    while stop.number is not None and _is_at_work(dvc.pid):
        time.sleep(_POLL_SECONDS)  # a stage that was stopped sends its last figures
    return code if code >= 0 else 128 - code


class _Stop:
    """Passes on the first signal, and the same one again: ``mlflow run`` sends two at Ctrl-C."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._group: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number in (None, number):
            self.number = number
            self._pass_on()

    def begin(self, group: int) -> None:
        """Name the group; what has come before it was there is passed on now."""
        self._group = group
        if self.number is not None:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._group is not None and self.number is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._group, self.number)


def _is_at_work(group: int) -> bool:
    """Return whether a process of a group still runs; one that only waits to be buried does not."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _is_bare(setting: str) -> bool:
    """Return whether a setting is an option of ``cfmvc tune`` (``n_trials=20``)."""
    return "." not in setting.partition("=")[0]


def as_options(settings: list[str]) -> list[str]:
    """Turn ``n_trials=5`` into ``--n-trials 5``, and ``register=true`` into ``--register``."""
    pairs = (setting.partition("=")[::2] for setting in settings)
    return [part for name, value in pairs for part in _as_option(name.replace("_", "-"), value)]


def _as_option(name: str, value: str) -> list[str]:
    switch = _SWITCHES.get(name)
    if switch is None or value.lower() not in switch:
        return [f"--{name}", value]
    return switch[value.lower()]


def as_settings(options: list[str]) -> list[str]:
    """Turn ``--vae.beta 0.5`` (how MLflow passes ``-P vae.beta=0.5``) into ``vae.beta=0.5``."""
    if len(options) % 2 or not all(name.startswith("--") for name in options[::2]):
        raise CfmvcError(f"expected pairs of --section.key and value, got: {' '.join(options)}")
    names = (name.removeprefix("--") for name in options[::2])
    return [f"{name}={value}" for name, value in zip(names, options[1::2], strict=True)]


if __name__ == "__main__":
    main()
