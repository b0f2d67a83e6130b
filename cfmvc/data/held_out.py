"""Which conditions are held out: chosen by the data, or declared and checked against them."""

import re
from collections import Counter

import pandas as pd

from cfmvc.data.config import SplitConfig
from cfmvc.data.vocabulary import split_label
from cfmvc.errors import ConfigError, DataError, listed, suggest

# What names a held-out condition, by kind of split; it is held out wherever these labels occur.
CONTEXT: dict[str, tuple[str, ...]] = {
    "held_out_cell_type": ("perturbation", "cell_type"),
    "held_out_batch": ("perturbation", "batch"),
    "held_out_combination": ("perturbation",),
}


def resolve_kind(perturbed: pd.DataFrame, config: SplitConfig) -> str:
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
    for kind in ("held_out_cell_type", "held_out_batch"):
        contexts = perturbed.groupby("perturbation")[CONTEXT[kind][1]].nunique()
        if (contexts >= 2).any():
            return kind
    return "random"


def choose_held_out(
    labels: pd.DataFrame, kind: str, test_fraction: float, separator: str, control: str
) -> list[dict[str, str]]:
    """Choose ``test_fraction`` of the candidates, the largest first.

    Ties go by label, with numbers in labels read as numbers (``CD4`` before ``CD14``). Every
    perturbation gives one context before any gives two, and keeps at least half of its contexts
    for training; likewise no cell type (or batch) loses more than half of its perturbations. A
    combination is a candidate if its parts are trained on singly. Contexts with a stratum that
    lacks real controls come last, for they have nothing to be compared with.
    """
    perturbed = labels[(labels["perturbation"] != control).to_numpy()]
    sizes = perturbed.groupby(list(CONTEXT[kind])).size()
    candidates = [_as_tuple(key) for key in sizes.index]
    if kind == "held_out_combination":
        candidates = [key for key in candidates if _parts_are_seen(key[0], perturbed, separator)]
        most = {key[0]: 1 for key in candidates}
    else:
        most = {label: n // 2 for label, n in Counter(key[0] for key in candidates).items()}
    if not any(most.values()):
        raise DataError(_nothing_to_hold_out(kind))

    n_wanted = max(1, round(test_fraction * len(candidates)))
    n_cells = dict(zip(map(_as_tuple, sizes.index), sizes.to_numpy(), strict=True))
    bare = _without_controls(labels, kind, control)
    candidates.sort(key=lambda key: (key in bare, -n_cells[key], [_natural(part) for part in key]))
    most_here = {where: max(1, n // 2) for where, n in Counter(k[1:] for k in candidates).items()}
    if kind == "held_out_combination":
        most_here = {(): len(candidates)}
    chosen: list[tuple[str, ...]] = []
    of_label: Counter[str] = Counter()
    of_context: Counter[tuple[str, ...]] = Counter()
    for most_so_far in range(1, max(most.values()) + 1):
        for key in candidates:
            label, context = key[0], key[1:]
            is_free = of_label[label] < min(most_so_far, most[label])
            is_free = is_free and of_context[context] < most_here[context]
            if len(chosen) < n_wanted and key not in chosen and is_free:
                chosen.append(key)
                of_label[label] += 1
                of_context[context] += 1
    return [dict(zip(CONTEXT[kind], key, strict=True)) for key in chosen]


def validate_held_out(
    perturbed: pd.DataFrame, kind: str, held_out: list[dict[str, str]], separator: str
) -> list[dict[str, str]]:
    """Check declared conditions against the data; all faults are named at once."""
    keys = CONTEXT[kind]
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
    unseen = _unseen_in_training(perturbed, kind, ordered, separator)
    if unseen:
        raise DataError("\n".join(unseen))
    return ordered


def _unseen_in_training(
    perturbed: pd.DataFrame, kind: str, held_out: list[dict[str, str]], separator: str
) -> list[str]:
    keys = list(CONTEXT[kind])
    wanted = {tuple(entry[key] for key in keys) for entry in held_out}
    is_out = [row in wanted for row in perturbed[keys].itertuples(index=False, name=None)]
    trained = set(perturbed["perturbation"][[not out for out in is_out]])
    parts = {part for label in trained for part in split_label(label, separator)}
    faults = []
    for label in dict.fromkeys(entry["perturbation"] for entry in held_out):
        needed = split_label(label, separator)
        missing = [part for part in needed if part not in parts]
        if len(needed) == 1 and missing:
            faults.append(
                f"split.held_out: no training cell of '{label}' would be left; "
                "leave at least one of its contexts out of the list"
            )
        elif missing:
            faults.append(
                f"split.held_out: '{label}' cannot be predicted, for no training cell has its "
                f"part {listed(missing)}; leave some in training"
            )
    return faults


def _parts_are_seen(label: str, perturbed: pd.DataFrame, separator: str) -> bool:
    parts = split_label(label, separator)
    singles = set(perturbed["perturbation"])
    return len(parts) > 1 and all(part in singles for part in parts)


def _without_controls(labels: pd.DataFrame, kind: str, control: str) -> set[tuple[str, ...]]:
    """Contexts with a stratum that has perturbed cells and no control."""
    is_control = (labels["perturbation"] == control).to_numpy()
    strata = pd.MultiIndex.from_frame(labels[["batch", "cell_type"]])
    lacks = ~strata.isin(strata[is_control]) & ~is_control
    keys = list(CONTEXT[kind])
    return {_as_tuple(row) for row in labels.loc[lacks, keys].itertuples(index=False, name=None)}


def _nothing_to_hold_out(kind: str) -> str:
    if kind == "held_out_combination":
        return (
            "split.kind held_out_combination: no combination has parts that also occur singly; "
            "choose another kind, or see data.separator"
        )
    what = CONTEXT[kind][1]
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
