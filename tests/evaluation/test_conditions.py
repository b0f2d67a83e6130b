"""Conditions as they are asked for: a dose stays the number that it is."""

import numpy as np
import pandas as pd
import pytest

from cfmvc.errors import DataError
from cfmvc.evaluation.conditions import Stratum, rows_of_conditions
from cfmvc.stages.conditions import check_conditions

# The shortest text of some of these is read as another number by pandas' own parser.
DOSES = [0.1, np.log1p(0.1), float(np.float32(0.1)), np.log1p(3.7), 1e-9, 1 / 3]


@pytest.mark.parametrize("as_text", [False, True])
def test_conditions_are_told_apart_by_the_same_doses(as_text: bool) -> None:
    conditions = pd.DataFrame(
        {"perturbation": "A", "batch": "b", "cell_type": "T", "n_cells": 1}, index=range(6)
    )
    conditions["dose"] = [repr(float(dose)) for dose in DOSES] if as_text else DOSES
    clean = check_conditions(conditions)
    assert clean["dose"].tolist() == [float(dose) for dose in DOSES]
    conditions["dose"] = DOSES
    asked, made = (set(rows_of_conditions(some, "control")) for some in (conditions, clean))
    assert asked == made


def test_a_single_precision_dose_is_not_rounded() -> None:
    row = {"perturbation": ["A"], "batch": ["b"], "cell_type": ["T"], "n_cells": [1]}
    conditions = pd.DataFrame(row | {"dose": np.asarray([0.1], np.float32)})
    assert check_conditions(conditions)["dose"].tolist() == [float(np.float32(0.1))]


def test_strata_with_commas_in_their_labels_do_not_read_alike() -> None:
    assert str(Stratum("b1", "T")) == "b1, T"
    assert str(Stratum("b", "c, d")) == "b, 'c, d'"
    assert str(Stratum("b, c", "d")) == "'b, c', d"


def test_a_column_that_looks_like_a_dose_and_numbers_beyond_all_measure_are_refused() -> None:
    row = {"perturbation": ["A"], "batch": "b", "cell_type": "T", "n_cells": 1}
    for name in ("Dose", "dose_uM", "doses"):
        with pytest.raises(DataError, match=f"column '{name}': is not read"):
            check_conditions(pd.DataFrame({**row, name: [3.0]}))
    assert "Dose" in check_conditions(pd.DataFrame({**row, "dose": [1.0], "Dose": [3.0]}))
    for n_cells in (1e30, float("inf"), 0, 2.5):
        with pytest.raises(DataError, match="n_cells: must be a positive integer, 10,000,000 at"):
            check_conditions(pd.DataFrame({**row, "n_cells": [n_cells]}))


@pytest.mark.parametrize("label", ["+", "A+", "+A", "A++B"])
def test_combinations_with_an_empty_part_are_refused(label: str) -> None:
    row = {"perturbation": ["A", label], "batch": "b", "cell_type": "T", "n_cells": 1}
    with pytest.raises(DataError, match=r"perturbation: '.*' has an empty part \(row 2\)"):
        check_conditions(pd.DataFrame(row), "+")
    assert check_conditions(pd.DataFrame(row))["perturbation"].tolist() == ["A", label]
