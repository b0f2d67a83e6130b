"""Which conditions are asked for."""

import pandas as pd

from cfmvc.data.prepared import held_out_conditions, in_whole_rounds


def test_controls_and_strata_without_controls_are_not_asked_for() -> None:
    rows = [
        ("A", "b1", "T", "test"),
        ("A", "b1", "T", "test"),
        ("control", "b1", "T", "train"),
        ("control", "b1", "T", "test"),  # a random split may test controls
        ("B", "b2", "T", "test"),
        ("control", "b2", "T", "test"),  # no control is left to start from
        ("B", "b1", "T", "train"),
    ]
    obs = pd.DataFrame(rows, columns=["perturbation", "batch", "cell_type", "split"])
    found = held_out_conditions(obs, "control")
    assert found.to_dict("records") == [{"perturbation": "A", "batch": "b1", "cell_type": "T"}]


def test_each_control_serves_equally_often_unless_there_are_plenty() -> None:
    rows = [("A", "b1", "T", "test"), ("A", "b2", "T", "test")]
    rows += [("control", "b1", "T", "train")] * 7 + [("control", "b1", "T", "test")] * 2
    rows += [("control", "b2", "T", "val")] * 30
    obs = pd.DataFrame(rows, columns=["perturbation", "batch", "cell_type", "split"])
    asked = in_whole_rounds(held_out_conditions(obs, "control"), obs, "control", 20)
    assert asked["n_cells"].tolist() == [21, 20]
    for most, expected in ((51, [21, 30]), (50, [21, 20])):
        conditions = held_out_conditions(obs, "control")
        asked = in_whole_rounds(conditions, obs, "control", 20, most)
        assert asked["n_cells"].tolist() == expected
