"""Which conditions are held out: chosen by the data, or declared and checked against them."""

import re
from collections import Counter

import numpy as np
import pandas as pd

from cfmvc.data.config import SplitConfig
from cfmvc.data.prepared import LEAST_CONTROLS
from cfmvc.data.vocabulary import split_label
from cfmvc.errors import ConfigError, DataError, listed, suggest

# What names a held-out condition, by kind of split; it is held out wherever these labels occur.
CONTEXT: dict[str, tuple[str, ...]] = {
    "held_out_cell_type": ("perturbation", "cell_type"),
    "held_out_batch": ("perturbation", "batch"),
    "held_out_combination": ("perturbation",),
}
# What evaluate.min_cells ships as: a condition with fewer test cells is listed as skipped, and a
# split of small conditions would have nothing scored after all the training.
ENOUGH_TO_SCORE = 8
_STRATUM = ["batch", "cell_type"]
_WITH_CONTROLS = "(batch and cell type) with controls"
_TO_SCORE = f"{ENOUGH_TO_SCORE} cells in a stratum with {LEAST_CONTROLS} controls, to be scored"


class Remaining:
    """What is left for training while one context after another is held out.

    A context may go if another one of the same perturbation stays that has *measured* cells, in a
    stratum with controls (others have no baseline of their own to be learnt against), and if all
    of its batches and cell types still occur: a batch that nothing else is in would be unknown.

    Parameters
    ----------
    labels
        Columns ``perturbation, batch, cell_type`` of all cells, and ``dose`` where they have one.
    kind
        A kind of split that holds conditions out.
    control
        Label of the unperturbed cells.
    """

    def __init__(self, labels: pd.DataFrame, kind: str, control: str) -> None:
        is_control = (labels["perturbation"] == control).to_numpy()
        strata = pd.MultiIndex.from_frame(labels[_STRATUM])
        is_measured = np.asarray(strata.isin(strata[is_control]))
        cells = labels.assign(is_measured=is_measured)[~is_control]
        keys = list(CONTEXT[kind])
        self.n_cells = {_as_tuple(key): int(n) for key, n in cells.groupby(keys).size().items()}
        self.bare = _contexts(cells[~cells["is_measured"]], keys)
        self.measured = _contexts(cells[cells["is_measured"]], keys)
        self.scorable = _contexts(cells[_is_scorable(cells, strata[is_control])], keys)
        self._labels = Counter(key[0] for key in self.measured)
        # Where there are controls, cells stay whatever is held out.
        self._cells: Counter[tuple[str, str]] = Counter()
        self._of_context: dict[tuple[str, ...], Counter[tuple[str, str]]] = {}
        for column in _STRATUM:
            at_risk = cells[~cells[column].isin(labels.loc[is_control, column])]
            names = list(dict.fromkeys([*keys, column]))
            for key, n in at_risk.groupby(names).size().items():
                row = dict(zip(names, _as_tuple(key), strict=True))
                value = (column, row[column])
                self._cells[value] += int(n)
                of_context = tuple(row[name] for name in keys)
                self._of_context.setdefault(of_context, Counter())[value] += int(n)

    def vanishing(self, key: tuple[str, ...]) -> list[tuple[str, str]]:
        """Return the batches and cell types, as (column, label), that only this context has."""
        here = self._of_context.get(key, Counter())
        return [value for value, n in here.items() if self._cells[value] <= n]

    def keeps_label(self, key: tuple[str, ...]) -> bool:
        """Whether another context of the perturbation has cells in a stratum with controls."""
        return self._labels[key[0]] > (key in self.measured)

    def take(self, key: tuple[str, ...]) -> None:
        """Hold a context out."""
        self._labels[key[0]] -= key in self.measured
        self._cells.subtract(self._of_context.get(key, Counter()))


def resolve_kind(labels: pd.DataFrame, config: SplitConfig, separator: str, control: str) -> str:
    """Return the kind of split; ``auto`` goes by ``held_out``'s keys, then by the data."""
    if config.kind != "auto":
        if config.kind == "random" and config.held_out:
            raise ConfigError(
                "split.held_out: a random split holds no condition out; set it to null, "
                f"or split.kind to one of {listed(CONTEXT)}"
            )
        return config.kind
    if config.held_out:
        keys = tuple(sorted(config.held_out[0]))
        for kind, names in CONTEXT.items():
            if keys == tuple(sorted(names)):
                return kind
        raise ConfigError(
            f"split.held_out: keys {listed(config.held_out[0])} fit no kind of split; valid are "
            + "; ".join(f"{listed(names)} ({kind})" for kind, names in CONTEXT.items())
        )
    for kind in CONTEXT:
        if _candidates(Remaining(labels, kind, control), kind, separator):
            return kind
    return "random"


def choose_held_out(
    labels: pd.DataFrame, kind: str, test_fraction: float, separator: str, control: str
) -> list[dict[str, str]]:
    """Choose ``test_fraction`` of the candidates, the largest first.

    Ties go by label, with numbers in labels read as numbers (``CD4`` before ``CD14``). Every
    perturbation gives one context before any gives two, and keeps at least half of its contexts
    for training, one of them in a stratum with controls; likewise no cell type (or batch) loses
    more than half of its perturbations, nor its last cell. A combination is a candidate if its
    parts are trained on singly. Contexts with a stratum that lacks real controls come last, and
    those without any control are never chosen, for they have nothing to be compared with; nor are
    those in which no condition has ``ENOUGH_TO_SCORE`` cells of a dose.
    """
    left = Remaining(labels, kind, control)
    candidates = _candidates(left, kind, separator)
    if not candidates:
        raise DataError(_nothing_to_hold_out(left, kind))
    is_combination = kind == "held_out_combination"
    n_contexts = Counter(key[0] for key in left.n_cells)
    most = {key[0]: 1 if is_combination else n_contexts[key[0]] // 2 for key in candidates}
    most_here = {where: max(1, n // 2) for where, n in Counter(k[1:] for k in candidates).items()}
    if is_combination:
        most_here = {(): len(candidates)}
    n_wanted = max(1, round(test_fraction * len(candidates)))
    candidates.sort(
        key=lambda key: (key in left.bare, -left.n_cells[key], [_natural(part) for part in key])
    )
    chosen: dict[tuple[str, ...], None] = {}  # in order, and found at once among very many
    of_label: Counter[str] = Counter()
    of_context: Counter[tuple[str, ...]] = Counter()
    for most_so_far in range(1, max(most.values()) + 1):
        for key in candidates:
            label, context = key[0], key[1:]
            is_free = of_label[label] < min(most_so_far, most[label])
            is_free = is_free and of_context[context] < most_here[context]
            is_free = is_free and (is_combination or left.keeps_label(key))
            is_free = is_free and not left.vanishing(key)
            if len(chosen) < n_wanted and key not in chosen and is_free:
                chosen[key] = None
                left.take(key)
                of_label[label] += 1
                of_context[context] += 1
    return [dict(zip(CONTEXT[kind], key, strict=True)) for key in chosen]


def validate_held_out(
    labels: pd.DataFrame, kind: str, held_out: list[dict[str, str]], separator: str, control: str
) -> list[dict[str, str]]:
    """Check declared conditions against the data; all faults are named at once."""
    keys = CONTEXT[kind]
    perturbed = labels[(labels["perturbation"] != control).to_numpy()]
    faults = [] if held_out else ["split.held_out: empty; name a condition, or null to choose"]
    present = set(perturbed[list(keys)].itertuples(index=False, name=None))
    for number, entry in enumerate(held_out):
        where = f"split.held_out[{number}]"
        if set(entry) != set(keys):
            faults.append(f"{where}: keys {listed(entry)}; a {kind} split needs {listed(keys)}")
            continue
        unknown = [
            f"{where}: no perturbed cell has {key} '{entry[key]}'"
            f"{suggest(entry[key], known)}; there are {listed(known, 40)}"
            for key in keys
            if entry[key] not in (known := sorted(set(perturbed[key])))
        ]
        if not unknown and tuple(entry[key] for key in keys) not in present:
            there = sorted(
                set(perturbed.loc[perturbed["perturbation"] == entry["perturbation"], keys[1]])
            )
            unknown = [
                f"{where}: no cell of '{entry['perturbation']}' has {keys[1]} "
                f"'{entry[keys[1]]}'; it occurs in {listed(there, 40)}"
            ]
        faults += unknown
    if faults:
        raise ConfigError("\n".join(faults))
    ordered = [{key: entry[key] for key in keys} for entry in held_out]
    untrainable = _untrainable(Remaining(labels, kind, control), ordered, separator)
    if untrainable:
        raise DataError("\n".join(untrainable))
    return ordered


def _untrainable(left: Remaining, held_out: list[dict[str, str]], separator: str) -> list[str]:
    """Say which declared conditions leave too little to train on, or cannot be scored at all."""
    wanted = [tuple(entry.values()) for entry in held_out]
    if left.measured.isdisjoint(wanted):
        return [
            f"split.held_out: none of these conditions is in a stratum {_WITH_CONTROLS}, so none "
            "can be scored; name one that is"
        ]
    trained = {key[0] for key in left.measured.difference(wanted)}
    parts = {part for label in trained for part in split_label(label, separator)}
    faults = []
    for number, key in enumerate(wanted):
        if key in wanted[:number]:
            continue  # listed twice
        where, label = f"split.held_out[{number}]", key[0]
        needed = split_label(label, separator)
        missing = [part for part in needed if part not in parts]
        if len(needed) == 1 and missing:
            faults.append(
                f"{where}: no training cell of '{label}' would be left in a stratum "
                f"{_WITH_CONTROLS}; leave one of its contexts there out of the list"
            )
        elif missing:
            faults.append(
                f"{where}: '{label}' cannot be predicted, for no training cell in a stratum "
                f"{_WITH_CONTROLS} has its part {listed(missing)}; leave some in training"
            )
        faults += [
            f"{where}: no training cell of the {column.replace('_', ' ')} '{name}' would be left; "
            "leave one of its conditions out of the list"
            for column, name in left.vanishing(key)
        ]
        left.take(key)
    return faults


def _candidates(left: Remaining, kind: str, separator: str) -> list[tuple[str, ...]]:
    """Return the contexts that can be scored, and each of which could be held out alone."""
    fit = [key for key in left.n_cells if key in left.scorable and not left.vanishing(key)]
    if kind != "held_out_combination":
        return [key for key in fit if left.keeps_label(key)]
    singles = {key[0] for key in left.measured}
    parts = {key: split_label(key[0], separator) for key in fit}
    return [key for key in fit if len(parts[key]) > 1 and singles.issuperset(parts[key])]


def _is_scorable(cells: pd.DataFrame, controls: pd.MultiIndex) -> np.ndarray:
    """Return which perturbed cells are of a condition that is large enough to be scored."""
    n_controls = controls.value_counts()
    strata = pd.MultiIndex.from_frame(cells[_STRATUM])
    has_controls = strata.isin(n_controls.index[n_controls >= LEAST_CONTROLS])
    names = ["perturbation", *_STRATUM, *(["dose"] if "dose" in cells else [])]
    n_cells = cells.groupby(names, dropna=False)["perturbation"].transform("size")
    return np.asarray(has_controls) & (n_cells >= ENOUGH_TO_SCORE).to_numpy()


def _contexts(cells: pd.DataFrame, keys: list[str]) -> set[tuple[str, ...]]:
    return set(cells[keys].drop_duplicates().itertuples(index=False, name=None))


def _nothing_to_hold_out(left: Remaining, kind: str) -> str:
    if kind == "held_out_combination":
        return (
            "split.kind held_out_combination: no combination has parts that also occur singly "
            f"(all in strata {_WITH_CONTROLS}), and {_TO_SCORE}; choose another kind, or see "
            "data.separator"
        )
    what = CONTEXT[kind][1]
    if left.measured and not left.scorable:
        return (
            f"split.kind {kind}: no perturbation has {_TO_SCORE} (of one dose, where there are "
            "doses); take coarser batches or cell types (--map batch=COLUMN), or name conditions "
            "in split.held_out and lower evaluate.min_cells"
        )
    if max(Counter(key[0] for key in left.n_cells).values()) >= 2:
        return (
            f"split.kind {kind}: no perturbation occurs in two values of {what} with controls, one "
            "to test and one to train on; choose another kind"
        )
    return (
        f"split.kind {kind}: no perturbation occurs in two values of {what}, so each would vanish "
        "from training; choose another kind"
    )


def _natural(label: str) -> list[tuple[int, int, str]]:
    """Sort key that reads digits as numbers."""
    return [
        (0, int(piece), "") if piece.isdecimal() else (1, 0, piece)
        for piece in re.split(r"(\d+)", label)
        if piece
    ]


def _as_tuple(key: object) -> tuple[str, ...]:
    return tuple(map(str, key)) if isinstance(key, tuple) else (str(key),)
