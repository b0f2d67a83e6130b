"""Compiled files that lie beside a version's code are what Python makes of it."""

import py_compile
import shutil
import sys
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

from cfmvc.registry.proof.compiled import expect_compiled_of_source
from cfmvc.registry.proof.link import BrokenLinkError
from tests.conftest import PROJECT

UNCHECKED, CHECKED = PycInvalidationMode.UNCHECKED_HASH, PycInvalidationMode.CHECKED_HASH
TEXT = "KNOWN = {'a', 'b', 'c'}\n\n\ndef f(x: str) -> bool:\n    return x in {'a', 'b', 'c'}\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "code" / "a.py"
    path.parent.mkdir()
    path.write_text(TEXT)
    return path


def compiled(source: Path, text: str | None = None, optimize: int = 0, **options: object) -> Path:
    """Compile a source, or another text as if it were that of the source."""
    level = "" if optimize == 0 else optimize
    target = Path(cache_from_source(str(source), optimization=level))
    other = source.with_name("elsewhere.py")
    other.write_text(source.read_text() if text is None else text)
    py_compile.compile(str(other), str(target), optimize=optimize, **options)  # type: ignore[arg-type]
    other.unlink()
    return target


def fault(source: Path) -> str:
    with pytest.raises(BrokenLinkError, match=r"^/store/code/.*delete that folder") as broken:
        expect_compiled_of_source(source.parent.parent, "/store")
    return str(broken.value)


@pytest.mark.parametrize("optimize", [0, 1, 2])
def test_what_python_compiled_of_it_is_the_source_wherever_it_was_made(
    source: Path, optimize: int
) -> None:
    shutil.copy(PROJECT / "cfmvc/registry/history.py", source.with_name("b.py"))
    for path in (source, source.with_name("b.py")):
        compiled(path, optimize=optimize)
        expect_compiled_of_source(source.parent.parent, "/store")
    compiled(source, optimize=optimize, invalidation_mode=CHECKED)
    expect_compiled_of_source(source.parent.parent, "/store")


@pytest.mark.parametrize("optimize", [0, 1, 2])
@pytest.mark.parametrize("text", [TEXT + "f('a')\n", TEXT.replace("'c'}", "'d'}"), "#\n" + TEXT])
def test_what_was_compiled_of_something_else_is_named(
    source: Path, text: str, optimize: int
) -> None:
    path = compiled(source, text, optimize)
    said = fault(source)
    assert f"/store/code/__pycache__/{path.name}: a compiled file that is not that of" in said


def test_what_nobody_can_tell_is_named(source: Path) -> None:
    path = compiled(source, invalidation_mode=UNCHECKED)
    assert "says that nobody is to compare it" in fault(source)
    content = compiled(source).read_bytes()
    path.write_bytes(content[:20])
    assert "is not that of its source" in fault(source)
    path.write_bytes(b"\0\0\0\0" + content[4:])
    assert "is of another Python" in fault(source)
    path.rename(path.with_name(f"a.{sys.implementation.cache_tag}9.pyc"))
    assert "is of another Python" in fault(source)
    shutil.rmtree(path.parent)
    compiled(source)
    source.unlink()
    assert "has no source" in fault(source)


def test_all_that_is_to_be_deleted_is_told_at_once(source: Path) -> None:
    for name in ("b.py", "c.py"):
        shutil.copy(source, source.with_name(name))
    for name in ("a.py", "b.py", "c.py"):
        compiled(source.with_name(name), "x = 1\n")
    assert "(2 more files are to be looked at: delete every __pycache__ there)" in fault(source)
