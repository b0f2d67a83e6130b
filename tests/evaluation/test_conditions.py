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


@pytest.mark.parametrize("label", ["+", "A+", "+A", "A++B"])
def test_combinations_with_an_empty_part_are_refused(label: str) -> None:
    row = {"perturbation": ["A", label], "batch": "b", "cell_type": "T", "n_cells": 1}
    with pytest.raises(DataError, match=r"perturbation: '.*' has an empty part \(row 2\)"):
        check_conditions(pd.DataFrame(row), "+")
    assert check_conditions(pd.DataFrame(row))["perturbation"].tolist() == ["A", label]
