"""Where a command writes: checked before any work is done, and never over what it reads."""

import os
from pathlib import Path

from cfmvc.errors import ConfigError, listed

_OF_MODELS = (".safetensors", ".npy")  # suffixes, of models of any version, damaged or not


def check_target_file(
    out: Path,
    inputs: list[Path],
    is_forced: bool,
    option: str = "--out",
    suffix: str | None = ".h5ad",
) -> None:
    """Refuse a target that would destroy something; ``option`` is what the user calls it.

    A name that does not end with ``suffix`` would say something else than what is in the file.

    Raises
    ------
    ConfigError
        If ``out`` is a folder, one of the inputs, an existing file (without ``--force``), has
        another suffix, or cannot be written.
    """
    if out.is_dir():
        raise ConfigError(f"{option} {out}: is a folder; name a file")
    if any(path.exists() and out.exists() and out.samefile(path) for path in inputs):
        raise ConfigError(
            f"{option} {out}: is one of the inputs, which would be lost; name another"
        )
    if suffix is not None and out.suffix != suffix:
        raise ConfigError(f"{option} {out}: what is written is AnnData; name it {out.stem}{suffix}")
    if out.exists() and not is_forced:
        raise ConfigError(f"{option} {out}: exists; name another file, or replace it with --force")
    _check_writable(out, option)


def check_target_model(out: Path, inputs: list[Path], is_forced: bool) -> None:
    """Refuse a folder that is no model of ours, or one that is and is not to be replaced.

    Raises
    ------
    ConfigError
        If ``out`` is there and no model, or one and not ``is_forced``; if it holds an input, or
        what is no part of the model: the whole folder is replaced.
    """
    if out.exists() and not (out / "model.json").is_file():
        raise ConfigError(f"--out {out}: exists and is not a cfmvc model; choose another folder")
    if out.exists() and not is_forced:
        raise ConfigError(f"--out {out}: exists; choose another folder, or replace it with --force")
    if out.exists():
        _expect_nothing_else(out, inputs)
    _check_writable(out, "--out")


def _expect_nothing_else(out: Path, inputs: list[Path]) -> None:
    for path in inputs:
        if out.resolve() in path.resolve().parents:
            raise ConfigError(f"--out {out}: holds the input {path}, which would be lost")
    others = sorted(
        path.name
        for path in out.iterdir()
        if path.name != "model.json" and path.suffix not in _OF_MODELS
    )
    if others:
        raise ConfigError(
            f"--out {out}: holds what is no part of the model, and would be lost: "
            f"{listed(others)}; move it, or choose another folder"
        )


def unfinished_folder(out: Path) -> Path:
    """Return the folder in which a fit keeps what it needs to go on, beside its target."""
    return out.with_name(f".{out.name}.unfinished")


def check_unfinished(out: Path, is_forced: bool) -> None:
    """Refuse to throw away what a killed fit has left, unless that is asked for."""
    folder = unfinished_folder(out)
    if not is_forced and any(path.is_file() for path in folder.rglob("*")):
        raise ConfigError(
            f"--out {out}: {folder} holds an unfinished fit; go on with it (--resume), or start "
            "anew and lose it (--force)"
        )


def _check_writable(out: Path, option: str) -> None:
    out = Path(os.path.realpath(out))
    # The modes are asked as they stand: to root every file is writable, also a protected one.
    if out.is_file() and not out.stat().st_mode & 0o222:
        raise ConfigError(f"{option} {out}: is read-only")
    folder = out.absolute().parent
    while not folder.exists():
        folder = folder.parent
    protected = folder.is_dir() and not folder.stat().st_mode & 0o222
    if not folder.is_dir() or protected or not os.access(folder, os.W_OK):
        raise ConfigError(f"{option} {out}: cannot be written, {folder} is not a writable folder")
