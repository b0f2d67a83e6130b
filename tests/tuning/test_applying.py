"""``cfmvc tune apply`` on files that somebody has edited."""

from pathlib import Path

import pytest

from cfmvc.cli.applying import applied
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
