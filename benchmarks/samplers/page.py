"""The comparison as a page: what was done, and a table for each set, surrogate and question."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from benchmarks.samplers import compare, pruners
from benchmarks.samplers.cells import FEWER
from benchmarks.samplers.surrogate import KINDS, Surrogate
from benchmarks.samplers.trials import SECONDS, VALUE
from cfmvc.tuning.search import Search

_HEAD = """\
# {what} of `cfmvc tune`: {name}

Written by `python -m benchmarks.samplers {option}`; do not edit.

{n} real trials at random points of the space of params.yaml (the first one: the present parameters)
are in `{file}`, with the value at each look; {n_without} without a value; {seconds:.0f} s each.
They are shorter than the shipped ones ({fewer}); all else is as shipped. Value: {objective},
smaller is better; {low:.3g} to {high:.3g}, median {middle:.3g}; of the present parameters
{present:.3g}.
"""
_SAMPLERS = """\
Not run on real trials, which would take hours, but on surrogates: models of the logarithm of the
value, to which the errors that they make on trials alike that they have not seen are added as
noise. R2 is of such predictions: the lower it is, the more of what a sampler could learn is missing
here. Studies (seeds) of {n_trials} trials, each begun with the present parameters, nothing pruned.
Of each study: the best value seen; and what that trial is worth without the noise, which is what
one gets. In brackets: quartiles. `beats`: share of seeds, equal ones by half; `p`: Wilcoxon, paired
by seed, without noise, not corrected for the number of comparisons. Slow samplers have fewer seeds.
`own seconds`: the sampler's, for a whole study, on a busy machine.
"""
_PRUNERS = """\
Shown the courses of the real trials in {n_orders} random orders; and those of the better half
alone, which is nearer to what a sampler draws that has learnt what is bad. `median` and `quarter`
begin at the second look, which was chosen after both were seen `from the first look`, on the same
trials; the latter are no choice of `tune`.
`compute saved` of the time without pruning; `best trial lost`: share of orders in which it was
ended early; `best value worse by`: mean over the orders; `at equal compute`: if the time saved goes
into further trials (below 0: better). Real studies have more good trials at their end than at their
beginning, these have not.
"""


@dataclass(frozen=True)
class Extent:
    """How much is compared."""

    n_seeds: int
    n_slow: int
    n_trials: int
    n_orders: int


@dataclass
class Page:
    """Lines for the file, printed as they come.

    Parameters
    ----------
    lines
        What has been said.
    """

    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self.lines += [text.rstrip("\n"), ""]
        print(text.rstrip("\n") + "\n", flush=True)

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_text("\n".join(self.lines).rstrip("\n") + "\n")


def samplers_page(file: Path, search: Search, extent: Extent) -> Page:
    """Compare samplers on surrogates of a file of trials."""
    page, config, table = Page(), search.config, pd.read_csv(file)
    page.say(_head("Samplers", "--compare", file, table, search.objectives[0].label))
    page.say(_SAMPLERS.format(n_trials=extent.n_trials))
    for name, kind in KINDS.items():
        surrogate = Surrogate.of(kind, search.space, table)
        r2 = f"R2 {surrogate.r2:.2f}, within the best third {surrogate.r2_of_best:.2f}"
        page.say(f"Surrogate `{name}` ({kind.words}): {r2}")
        seeds = (extent.n_seeds, extent.n_slow)
        made = compare.compare(surrogate, *seeds, extent.n_trials, config.n_startup_trials)
        page.say(made.to_markdown())
    return page


def pruners_page(file: Path, search: Search, extent: Extent) -> Page:
    """Compare pruners on a file of trials."""
    page, config, table = Page(), search.config, pd.read_csv(file)
    page.say(_head("Pruners", "--prune", file, table, search.objectives[0].label))
    page.say(_PRUNERS.format(n_orders=extent.n_orders))
    for words, trials in (("All trials", table), ("The better half", _better_half(table))):
        n_trials = min(extent.n_trials, 2 * len(trials) // 3)  # some must be left to go on with
        foresight = f"rank correlation of the looks with the value {pruners.foresight(trials)}"
        page.say(f"{words}, {n_trials} of {len(trials)} a study; {foresight}:")
        numbers = (extent.n_orders, n_trials, config.n_startup_trials, config.n_looks)
        page.say(pruners.compare(trials, *numbers).to_markdown())
    return page


def _better_half(table: pd.DataFrame) -> pd.DataFrame:
    return table[table[VALUE] <= table[VALUE].median()]


def _head(what: str, option: str, file: Path, table: pd.DataFrame, objective: str) -> str:
    low, middle, high = table[VALUE].quantile([0.0, 0.5, 1.0])
    epochs = [f"{name}.{key} {v}" for name, of in FEWER.items() for key, v in of.items()]
    return _HEAD.format(
        what=what,
        option=option,
        name=file.stem.partition("-")[2],
        n=len(table),
        file=file.name,
        n_without=table[VALUE].isna().sum(),
        seconds=table[SECONDS].median(),
        fewer=", ".join(epochs),
        objective=objective,
        low=low,
        middle=middle,
        high=high,
        present=table[VALUE].iloc[0],
    )
