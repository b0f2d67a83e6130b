"""What Python has compiled of a version's code, and runs in the place of the source."""

import marshal
import sys
import warnings
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path

from cfmvc.registry.proof.link import BrokenLinkError

_FOLDER = "__pycache__"
# The marks of `python`, `python -O` and `python -OO`, in the order of compile()'s `optimize`.
_LEVELS = ("", ".opt-1", ".opt-2")
_HEADER = 16  # bytes of a .pyc before its code (PEP 552)
# In this format the same code has the same bytes; the later ones write an object that is used twice
# in one place or in two, as it happens.
_PLAIN = 2


def expect_compiled_of_source(model: Path, where: str) -> None:
    """Compile every source again that has a compiled file beside it.

    Hashes leave ``__pycache__`` out, for it appears wherever code is loaded. But Python takes what
    lies there without a look at the source, if the time of that or a flag says so.

    Parameters
    ----------
    model
        The MLflow model, downloaded.
    where
        Its address in the store, for the message.

    Raises
    ------
    BrokenLinkError
        If a compiled file is not what this Python makes of the source, or nobody can tell.
    """
    found = _faults(model)
    path, words = next(found, (None, ""))
    if path is None:
        return
    more = sum(1 for _ in found)
    others = f" ({more} more files are to be looked at: delete every {_FOLDER} there)" * bool(more)
    raise BrokenLinkError(
        f"{where}/{path.relative_to(model).as_posix()}: a compiled file that {words}; Python may "
        f"run it in the place of the source: delete that folder{others}"
    )


def _faults(model: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(model.rglob("*.pyc")):
        if _FOLDER in path.relative_to(model).parts and (words := _fault(path)):
            yield path, words


def _fault(path: Path) -> str:
    """Return why a file is not to be trusted; nothing if it is what its source says."""
    for optimize, mark in enumerate(_LEVELS):
        suffix = f".{sys.implementation.cache_tag}{mark}.pyc"
        if path.name.endswith(suffix) and path.parent.name == _FOLDER:
            source = path.parent.with_name(f"{path.name.removesuffix(suffix)}.py")
            return _compared(path.read_bytes(), source, optimize)
    return "is of another Python, and cannot be compared with its source here"


def _compared(compiled: bytes, source: Path, optimize: int) -> str:
    if not source.is_file():
        return "has no source"
    if compiled[:4] != MAGIC_NUMBER:
        return "is of another Python, and cannot be compared with its source here"
    flags = int.from_bytes(compiled[4:8], "little")
    if flags & 0b01 and not flags & 0b10:
        return "says that nobody is to compare it with its source"
    return "" if _is_of(compiled[_HEADER:], source, optimize) else "is not that of its source"


def _is_of(compiled: bytes, source: Path, optimize: int) -> bool:
    try:
        code = marshal.loads(compiled)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the source: not our business
            # under the name that it had where it was compiled, which is a part of it
            text, name = source.read_bytes(), code.co_filename
            again = compile(text, name, "exec", dont_inherit=True, optimize=optimize)
        return marshal.dumps(code, _PLAIN) == marshal.dumps(again, _PLAIN)
    except (AttributeError, EOFError, SyntaxError, TypeError, ValueError):
        return False
