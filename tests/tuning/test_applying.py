"""``cfmvc tune apply`` on files that somebody has edited."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cfmvc.cli.app import app
from cfmvc.cli.applying import applied, doubts
from cfmvc.errors import ConfigError
from cfmvc.tuning.files import BEST, NOTHING

_BEST = "params:\n  flow:\n    lr: 0.007\n"


def files(folder: Path, params: str, best: str = _BEST) -> Path:
    """Write both files, and return the folder."""
    (folder / BEST).parent.mkdir(parents=True)
    (folder / BEST).write_text(best)
    (folder / "params.yaml").write_text(params)
    return folder


@pytest.mark.parametrize(
    "params",
    [
        "flow:\n  seed: 0\n",
        "flow:\n  # lr: 0.001\n",
        "flow: fast\n",
        "flow: [lr]\n",
        "vae:\n  lr: 0.001\n",
    ],
)
def test_a_key_that_params_yaml_lacks_is_an_error_and_nothing_is_changed(
    params: str, tmp_path: Path
) -> None:
    words = "params.yaml: no key 'lr' in section 'flow'; put `lr: 0.007` there by hand"
    with pytest.raises(ConfigError, match=words):
        applied(files(tmp_path, params))
    assert (tmp_path / "params.yaml").read_text() == params


@pytest.mark.parametrize("best", [NOTHING, "params:\n", "params: fast\n", "params: {flow: fast}\n"])
def test_a_file_without_best_parameters_says_who_makes_them(best: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{BEST}: no best parameters there; `cfmvc tune` makes"):
        applied(files(tmp_path, "flow:\n  lr: 0.001\n", best))


def a_test(verdict: str, best: str, present: str) -> str:
    return (
        "test:\n  energy_distance:\n"
        f"    best: {best}\n    present_parameters: {present}\n    verdict: {verdict}\n"
    )


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (
            a_test("not confirmed", "0.157", "0.109"),
            "has not confirmed them: energy_distance is 0.",
        ),
        (a_test("not defined", "null", "null"), "energy_distance is not defined on its conditions"),
        (a_test("confirmed", "0.1", "0.2"), ""),
        (a_test("the same", "0.1", "0.1"), ""),
        ("", ""),
    ],
)
def test_what_the_test_has_not_confirmed_is_applied_with_a_warning(
    test: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files(tmp_path, "flow:\n  lr: 0.001\n", test + _BEST))
    done = CliRunner().invoke(app, ["tune", "apply"])
    assert done.exit_code == 0
    assert "flow.lr: 0.001 -> 0.007" in done.stdout
    assert words in done.stderr
    assert done.stderr.startswith("warning: the test") == bool(words)
    assert (tmp_path / "params.yaml").read_text() == "flow:\n  lr: 0.007\n"


def test_values_that_the_study_had_and_params_yaml_has_not_are_named(tmp_path: Path) -> None:
    beside = "found_with:\n  vae:\n    n_epochs: 8\n    lr: 0.1\n"
    params = "flow:\n  lr: 0.001\nvae:\n  n_epochs: 80\n  lr: 0.1\n"
    folder = files(tmp_path, params, beside + _BEST)
    assert doubts(folder) == [
        "they were found with vae.n_epochs=8, and `dvc repro` trains with what params.yaml says: "
        "vae.n_epochs=80"
    ]
    (folder / "params.yaml").write_text(params.replace("80", "8"))
    assert doubts(folder) == []
