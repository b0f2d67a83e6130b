"""The work behind ``cfmvc tune``."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

from cfmvc.cli.applying import settings_text
from cfmvc.cli.promoting import promoted
from cfmvc.config import override, read_yaml
from cfmvc.errors import CfmvcError, ConfigError, listed
from cfmvc.registry.registry import Registry
from cfmvc.tracking.run import TAGS_VARIABLE
from cfmvc.tuning.files import BEST
from cfmvc.tuning.tune import TuneResult, tune

_VERDICTS = {
    "not confirmed": "NOT confirmed, the present parameters do better",
    "not defined": "not defined on these conditions",
}


def tuned(
    workspace: Path,
    asked: dict[str, Any],
    settings: list[str],
    n_workers: int,
    with_test: bool,
) -> TuneResult:
    """Carry out a study with what the command line changes in ``params.yaml``.

    Raises
    ------
    ConfigError
        If there is no ``params.yaml``, or it has no section ``tune``.
    """
    params = override(read_yaml(workspace / "params.yaml"), settings)
    if not isinstance(params.get("tune"), dict):
        raise ConfigError(f"params.yaml: no section 'tune'; sections: {listed(params)}")
    given = {key: value for key, value in asked.items() if value is not None}
    params["tune"] = {**params["tune"], **given}
    return tune(workspace, params, n_workers, with_test, _say)


def study_text(result: TuneResult) -> str:
    """Return what a study has found, for a terminal."""
    counts = ", ".join(f"{n} {state}" for state, n in result.n_trials.items() if n)
    vaes = f"{result.n_vae_trainings} VAE{'s' if result.n_vae_trainings != 1 else ''} trained"
    lines = [f"study '{result.study}': {counts}; {vaes}", ""]
    lines += [f"validation ({result.held_out})"]
    for name, values in result.best["objectives"].items():
        present = values["present_parameters"]
        before = "not known" if present is None else f"{present:.4g}"
        lines.append(
            f"  {name}: {values['validation']:.4g} with trial {result.best['trial']}, "
            f"{before} with the present parameters"
        )
    if result.confirmations:
        lines.append("test (conditions that no trial has seen)")
    for found in result.confirmations:
        verdict = _VERDICTS.get(found.verdict, found.verdict)
        lines.append(
            f"  {found.objective.label}: {found.best:.4g} with trial {result.best['trial']}, "
            f"{found.present:.4g} with the present parameters: {verdict}"
        )
    if result.changes:
        width = max(map(len, result.changes))
        lines += ["", f"{BEST}: trial {result.best['trial']}, where it differs from params.yaml"]
        for name, (before, after) in result.changes.items():
            lines.append(f"  {name:{width}}  {_short(before)} -> {_short(after)}")
        if beside := result.best.get("found_with"):
            lines.append(f"all trials had {settings_text(beside)}, which params.yaml does not say")
        lines.append(_next(result))
    else:
        lines += ["", "the present parameters are the best of these trials"]
    return "\n".join(lines)


def registered_best(
    workspace: Path, result: TuneResult, settings: list[str], with_gate: bool
) -> None:
    """Train the best parameters in full as a DVC experiment, which registers the model.

    Raises
    ------
    CfmvcError
        If DVC fails; it has said why.
    PromotionRefused
        If the gate refuses.
    """
    changes = changed_parameters(result, settings)
    options = [part for setting in changes for part in ("--set-param", setting)]
    commands = [["exp", "run", "--temp", *options, "register"]]
    if not changes:  # the pipeline as it stands; its version is given the name of the study
        commands = [["repro", "register"], ["repro", "--force", "--single-item", "register"]]
    tags = {"cfmvc.study": result.study, "cfmvc.trial": str(result.best["trial"])}
    _say(f"training trial {result.best['trial']} in full")
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command],
            cwd=workspace,
            env={**os.environ, TAGS_VARIABLE: json.dumps(tags)},
            stdout=_of_this_process(sys.stdout),
            check=False,
        )
        if done.returncode != 0:
            words = " ".join(command[:2])
            raise CfmvcError(f"dvc {words} has failed (exit code {done.returncode})")
    if with_gate:
        print(promoted(workspace, _version_of(workspace, tags)))


def _of_this_process(stream: TextIO) -> int | None:
    """Return where a stream goes, for a process; None (as ours) where it is no file."""
    try:
        stream.flush()
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _version_of(workspace: Path, tags: dict[str, str]) -> str:
    """Return the newest version that a study's trial was registered as.

    DVC takes what it has from its cache, and registers nothing then; the alias of the newest
    version may be somebody else's by now.
    """
    for version in Registry.of_project(workspace).versions():
        if tags.items() <= version.tags.items():
            return str(version.version)
    raise CfmvcError(
        f"DVC has trained trial {tags['cfmvc.trial']} before, and registered it without the name "
        "of the study: look for it with `cfmvc registry list`, and promote it by its number"
    )


def changed_parameters(result: TuneResult, settings: list[str]) -> list[str]:
    """Return what the best trial was carried out with and ``params.yaml`` does not say.

    As ``section.key=value``, of which the last one of a name counts: the trial's own.
    """
    asked = [setting for setting in settings if not setting.startswith("tune.")]
    return asked + [f"{name}={json.dumps(after)}" for name, (_, after) in result.changes.items()]


def _next(result: TuneResult) -> str:
    """Return what to do; the best of several objectives is so by the first one."""
    if result.confirmations and result.confirmations[0].verdict == "not confirmed":
        return (
            "the present parameters stay, for the test prefers them; "
            "`cfmvc tune apply` would take the others all the same"
        )
    return "next: cfmvc tune apply, then dvc repro"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
