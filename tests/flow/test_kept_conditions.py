"""Of many conditions the largest of each kind are kept, or whole groups of them."""

import numpy as np

from cfmvc.flow.kept_conditions import foremost, whole_groups


def test_the_largest_of_each_kind_come_first() -> None:
    kind, n_cells = np.asarray([0, 0, 0, 1, 1, 2]), np.asarray([9, 5, 7, 1, 2, 3])
    assert foremost(kind, n_cells, 3).tolist() == [0, 4, 5]
    assert foremost(kind, n_cells, 4).tolist() == [0, 2, 4, 5]
    assert foremost(kind, n_cells, 6).tolist() == list(range(6))


def test_groups_are_kept_whole() -> None:
    kind = np.asarray([0, 0, 0, 0, 1, 1, 1, 1])
    group = np.asarray([5, 5, 6, 6, 7, 7, 8, 8])
    n_cells = np.asarray([1, 1, 30, 1, 40, 1, 2, 2])
    assert whole_groups(kind, group, n_cells, 5).tolist() == [2, 3, 4, 5]
    assert whole_groups(kind, group, n_cells, 6).tolist() == [2, 3, 4, 5, 6, 7]
    assert whole_groups(kind, group, n_cells, 8).tolist() == list(range(8))
