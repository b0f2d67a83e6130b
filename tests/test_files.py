"""A file or folder is replaced as a whole, and nothing beside it."""

from pathlib import Path

import pytest

from cfmvc.errors import CfmvcError
from cfmvc.files import atomic_path, write_json


def test_a_file_never_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "precious").write_text("all of it")
    with pytest.raises(CfmvcError, match="is a folder, which a file cannot replace"):
        write_json(folder, {})
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "precious"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_link_leads_to_is_replaced_and_the_link_stays(kind: str, tmp_path: Path) -> None:
    real, link = tmp_path / "elsewhere" / "real", tmp_path / "link"
    real.parent.mkdir()
    link.symlink_to(real)  # at first it leads nowhere
    for words in ("first", "second"):
        with atomic_path(link) as made:
            if kind == "folder":
                made.mkdir()
                (made / "words").write_text(words)
            else:
                made.write_text(words)
        assert link.is_symlink()
        assert (real / "words" if kind == "folder" else real).read_text() == words
    assert [path.name for path in real.parent.iterdir()] == ["real"]


def test_a_link_into_a_cache_is_replaced_and_the_cache_is_not(tmp_path: Path) -> None:
    """As with DVC's `cache.type symlink`: what is read-only there is another version's."""
    kept, link = tmp_path / "cache", tmp_path / "link"
    kept.write_text("old")
    kept.chmod(0o444)
    link.symlink_to(kept)
    with atomic_path(link) as made:
        made.write_text("new")
    assert (kept.read_text(), link.read_text(), link.is_symlink()) == ("old", "new", False)
