from pathlib import Path

from cfmvc.registry.hashes import sha256_of_folder


def test_code_that_was_loaded_is_the_same_code_and_edited_code_is_not(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("x = 1\n")
    before = sha256_of_folder(tmp_path)
    (tmp_path / "code" / "__pycache__").mkdir()
    (tmp_path / "code" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"compiled")
    assert sha256_of_folder(tmp_path) == before
    (tmp_path / "code" / "a.py").write_text("x = 2\n")
    assert sha256_of_folder(tmp_path) != before
