"""Faults of the label columns: missing ones, missing labels, the control, combinations."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from anndata import AnnData

from cfmvc.data.config import DataConfig
from cfmvc.data.faults import Fault
from cfmvc.data.labels import (
    COLUMNS,
    canonical_spellings,
    column_of,
    has_empty_part,
    holds_fractions,
    read_labels,
)
from cfmvc.data.vocabulary import split_label
from cfmvc.errors import listed, suggest

CANONICAL_CONTROL = "control"
# Words that stand for a missing label once a table has been turned into text.
_LIKE_MISSING = {"nan", "none", "<na>", "null", "n/a"}
# What unperturbed cells are called in published data sets.
_LIKE_CONTROL = {
    *("control", "controls", "ctrl", "ctr", "non-targeting", "nontargeting", "nt", "neg", "mock"),
    *("dmso", "vehicle", "untreated", "unstimulated", "unperturbed", "pbs", "wt", "wild type"),
    *("safe-targeting", "negative control", "negctrl", "resting"),
}
# What else joins the parts of a combination in published data sets.
_LIKE_SEPARATORS = ("+", "_", "-", "|", "&", ",", ";", ":", "/")
_FEWEST_WITH_CONTROL = 3  # labels such as A_ctrl, for that to be how singles are written


def check_labels(adata: AnnData, config: DataConfig) -> Iterator[Fault]:
    """Yield the faults of the three columns, then those of the perturbations' labels."""
    for key in COLUMNS:
        yield from _check_column(adata, key, getattr(config, key))
    column = column_of(adata, config.perturbation)
    if column is None or len(column) == 0:
        return
    labels = read_labels(column)
    known = sorted(set(labels.text[~labels.is_missing]) - {""})
    if known:
        yield from _check_control(known, config)
        yield from _check_combinations(known, labels.text, config)
        yield from _check_other_separators(known, config)


def check_separator(adata: AnnData, config: DataConfig) -> Iterator[Fault]:
    """Yield an error where a file was added with a separator by which its control was lost.

    Its control was renamed where it stood alone, and not in labels that were not split then.
    """
    recorded, column = adata.uns.get("cfmvc"), column_of(adata, config.perturbation)
    if not isinstance(recorded, dict) or column is None:
        return
    before, old = recorded.get("separator"), recorded.get("control_in_source")
    if before == config.separator or old in (None, config.control):
        return
    known = sorted(set(read_labels(column).text))
    lost = [label for label in known if old in split_label(label, config.separator)]
    if lost:
        yield Fault(
            "error",
            f"obs['{config.perturbation}']",
            f"the file was added with the separator '{before}', and data.separator is "
            f"'{config.separator}': of {listed(lost, 3)} '{old}' was the control, and would be a "
            "perturbation",
            remedy="run cfmvc data add on its source again, with --separator",
        )


def check_arms(labels: pd.DataFrame, config: DataConfig) -> Iterator[Fault]:
    """Yield an error where there is one arm alone: nothing can be learnt from it.

    Parameters
    ----------
    labels
        Canonical labels of the cells.
    config
        The section ``data``.
    """
    known = labels["perturbation"].unique()
    if len(known) != 1:
        return
    is_control = known[0] == config.control
    what = f"a control ('{known[0]}')" if is_control else f"labelled '{known[0]}'"
    where = f"obs['{config.perturbation}']"
    yield Fault("error", where, f"every cell is {what}", remedy=_TWO_ARMS)


def _check_column(adata: AnnData, key: str, name: str) -> Iterator[Fault]:
    where, n_cells = f"obs['{name}']", adata.n_obs
    if name not in adata.obs:
        columns = [str(column) for column in adata.obs.columns]
        has = f"the file has {listed(columns, 20)}" if columns else "the file has no column"
        yield Fault(
            "error",
            where,
            f"no such column{suggest(name, columns) or suggest(key, columns)}; {has}",
            remedy=f"name the column of the {key.replace('_', ' ')} with --map {key}=COLUMN"
            + (f"; of one alone, adata.obs['{key}'] = 'all'" if key != "perturbation" else ""),
        )
        return
    column = column_of(adata, name)
    if column is None:
        yield Fault("error", where, "several columns have this name", remedy="keep one of them")
        return
    if holds_fractions(column):
        example = column.dropna()[column.dropna() % 1 != 0].iloc[0]
        yield Fault(
            "error",
            where,
            f"holds numbers such as {example:g}, not labels",
            remedy=f"name the column of the {key.replace('_', ' ')} with --map {key}=COLUMN",
        )
        return
    labels = read_labels(column)

    def fault(severity: str, is_bad: np.ndarray, message: str, remedy: str) -> Fault:
        n_bad = int(is_bad.sum())
        example = f"cell '{adata.obs_names[int(np.argmax(is_bad))]}'"
        text = f"{n_bad:,} of {n_cells:,} cells {message}"
        kind = "error" if severity == "error" else "warning"
        return Fault(kind, where, text, n_bad, example, remedy)  # type: ignore[arg-type]

    is_blank = ~labels.is_missing & (labels.text == "")
    if labels.is_missing.any():
        yield fault("error", labels.is_missing, "have no label", "label or remove them")
    if is_blank.any():
        yield fault("error", is_blank, "have a blank label", "label or remove them")
    if (is_padded := labels.is_padded & ~is_blank).any():
        yield fault("warning", is_padded, "have blanks around the label", "removed on reading")
    is_odd = np.asarray([label.casefold() in _LIKE_MISSING for label in labels.text], dtype=bool)
    if is_odd.any():
        label = labels.text[is_odd][0]
        yield fault("warning", is_odd, f"are labelled '{label}'", "is that a missing label?")
    yield from _check_spelling(column, labels.text, where)


def _check_spelling(column: pd.Series, text: np.ndarray, where: str) -> Iterator[Fault]:
    by_folded: dict[str, list[str]] = {}
    for label in sorted(set(text) - {""}):
        by_folded.setdefault(label.casefold(), []).append(label)
    for twins in by_folded.values():
        if len(twins) > 1:
            yield Fault(
                "warning",
                where,
                f"{listed(twins)} differ only in upper and lower case",
                remedy="if they are one label, spell it one way",
            )
    if isinstance(column.dtype, pd.CategoricalDtype):
        used = set(column.dropna().unique())
        unused = [str(category) for category in column.cat.categories if category not in used]
        if unused:
            n = "1 category is" if len(unused) == 1 else f"{len(unused)} categories are"
            yield Fault(
                "warning",
                where,
                f"{n} not used by any cell: {listed(unused)}",
                remedy="dropped on reading",
            )


def _check_control(known: list[str], config: DataConfig) -> Iterator[Fault]:
    where, control = f"obs['{config.perturbation}']", config.control
    if control not in known:
        hint = suggest(control, known)
        if not hint:
            like = [label for label in known if label.casefold() in _LIKE_CONTROL]
            hint = f" (did you mean '{like[0]}'?)" if like else ""
        yield Fault(
            "error",
            where,
            f"no cell is labelled '{control}', the control{hint}; labels are {listed(known, 20)}",
            remedy="name the label of the unperturbed cells with --control LABEL",
        )
        return
    if control != CANONICAL_CONTROL and CANONICAL_CONTROL in known:
        yield Fault(
            "error",
            where,
            f"both '{control}', named as the control, and '{CANONICAL_CONTROL}' are labels",
            remedy=f"merge them, or rename '{CANONICAL_CONTROL}'",
        )


_TWO_ARMS = "cells of at least one perturbation and of the control are needed"


def _check_combinations(known: list[str], text: np.ndarray, config: DataConfig) -> Iterator[Fault]:
    where, separator = f"obs['{config.perturbation}']", config.separator
    broken = [label for label in known if has_empty_part(label, separator)]
    for label in broken:
        n_cells = int((text == label).sum())
        yield Fault(
            "error",
            where,
            f"{n_cells:,} of {len(text):,} cells are labelled '{label}', a combination with an "
            "empty part",
            n_cells,
            remedy=f"rename it, or set data.separator (--separator), now '{separator}', to '' or "
            "another",
        )
    whole = [label for label in known if label not in broken]
    spellings = canonical_spellings(whole, separator, config.control)
    changed = [label for label in whole if spellings[label] != label]
    if changed:
        how = ", ".join(f"'{label}' as '{spellings[label]}'" for label in changed[:5])
        more = f", ... ({len(changed)} in all)" if len(changed) > 5 else ""
        yield Fault(
            "warning",
            where,
            f"labels that mean the same are read as one: {how}{more}",
            remedy="the control adds nothing to a combination, and the order of its parts is free",
        )
    singles = {label for label in spellings.values() if len(split_label(label, separator)) == 1}
    for label in sorted(set(spellings.values()) - singles - {config.control}):
        unseen = [part for part in split_label(label, separator) if part not in singles]
        if unseen:
            never = "occurs" if len(unseen) == 1 else "occur"
            yield Fault(
                "warning",
                where,
                f"of the combination '{label}', {listed(unseen)} never {never} alone",
                remedy="the effects of its parts cannot be told apart; if they are no parts, set "
                f"data.separator (--separator), now '{separator}', to ''",
            )


def _check_other_separators(known: list[str], config: DataConfig) -> Iterator[Fault]:
    """Yield a warning where labels look like two others with a sign between them.

    Who has said that labels are never split is believed.
    """
    if not config.separator:
        return
    whole = [label for label in known if config.separator not in label]
    for sign in _LIKE_SEPARATORS:
        joined = [] if sign in config.separator else _joined(whole, sign, config.control)
        if joined:
            what = (
                f"'{joined[0]}' looks like a combination joined by '{sign}', and is read as a "
                "single perturbation"
                if len(joined) == 1
                else f"{len(joined):,} labels look like combinations joined by '{sign}', and are "
                f"read as single perturbations: {listed(joined, 3)}"
            )
            yield Fault(
                "warning",
                f"obs['{config.perturbation}']",
                what,
                remedy=f"if that is so: data.separator (--separator '{sign}'), which is "
                f"'{config.separator}' now",
            )


def _joined(labels: list[str], sign: str, control: str) -> list[str]:
    """Return the labels whose halves are labels, or with the control, where some are so."""
    names = set(labels)
    pairs = [label for label in labels if any(names.issuperset(h) for h in _halves(label, sign))]
    with_control = [
        label
        for label in labels
        if any(control in half and _is_name(half, control) for half in _halves(label, sign))
    ]
    # Of a few, each may be a guide or a solvent that is called like the control.
    is_a_custom = len(with_control) >= _FEWEST_WITH_CONTROL
    return sorted({*pairs, *with_control}) if is_a_custom else pairs


def _is_name(half: tuple[str, str], control: str) -> bool:
    """Whether what stands beside the control may be a perturbation, and is no number of a guide."""
    return any(name != control and not name.isdecimal() for name in half)


def _halves(label: str, sign: str) -> Iterator[tuple[str, str]]:
    parts = label.split(sign)
    for cut in range(1, len(parts)):
        half = sign.join(parts[:cut]).strip(), sign.join(parts[cut:]).strip()
        if all(half):
            yield half
