"""How hard a condition is: how far the best of the simple baselines comes."""

import pandas as pd

SOLVED, BETWEEN, RESISTANT = "solved by a baseline", "between", "resistant"
DIFFICULTIES = (SOLVED, BETWEEN, RESISTANT)
_METRIC = "energy_distance"


def difficulty(
    per_condition: pd.DataFrame, baselines: list[str], solved_at: float, resistant_below: float
) -> pd.Series:
    """Return ``solved by a baseline``, ``between`` or ``resistant`` for each condition.

    The way goes from the real controls (no effect predicted) to the ceiling, in energy distance;
    a condition whose controls are as near as the ceiling has no way to go, and is solved.

    Parameters
    ----------
    per_condition
        Columns ``method``, ``condition`` and ``energy_distance``; methods ``control``, ``ceiling``
        and the baselines are among the rows.
    baselines
        Names of the simple methods.
    solved_at, resistant_below
        Shares of the way.
    """
    table = per_condition.pivot(index="condition", columns="method", values=_METRIC)
    way = table["control"] - table["ceiling"]
    gone = table["control"] - table[baselines].min(axis=1)
    share = (gone / way).where(way > 0, 1.0)
    found = pd.Series(BETWEEN, index=table.index)
    found[share >= solved_at] = SOLVED
    found[share < resistant_below] = RESISTANT
    return found
