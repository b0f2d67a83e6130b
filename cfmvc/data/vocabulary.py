"""From labels to columns: perturbations (with combinations and doses), batches, cell types."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cfmvc.errors import DataError, UnknownLabelError, listed, suggest

Labels = Sequence[str] | np.ndarray
Doses = Sequence[float] | np.ndarray
_MOST_NAMED = 5  # labels that are unknown; each is looked for among all that are known


@dataclass(frozen=True)
class Vocabulary:
    """The labels that a model knows, in the order of their columns.

    Parameters
    ----------
    perturbations
        Single perturbations; the control is the first. A combination is not a label of its own.
    batches, cell_types
        Covariate labels.
    separator
        What joins the parts of a combination (``A+B``); empty if labels are never split.
    """

    perturbations: tuple[str, ...]
    batches: tuple[str, ...]
    cell_types: tuple[str, ...]
    separator: str = "+"
    _columns: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        columns = {name: column for column, name in enumerate(self.perturbations)}
        object.__setattr__(self, "_columns", columns)

    @classmethod
    def of(
        cls,
        perturbations: Iterable[str],
        batches: Iterable[str],
        cell_types: Iterable[str],
        control: str,
        separator: str = "+",
        embedded: Iterable[str] = (),
    ) -> "Vocabulary":
        """Collect the sorted labels of a data set (combinations are taken apart).

        ``embedded`` are perturbations that are known by their embeddings, seen or not; of the
        control, or of a combination, a vector says nothing.
        """
        alone = {name for name in embedded if perturbing_parts(name, separator, control) == (name,)}
        parts = {
            part
            for label in set(perturbations)
            for part in perturbing_parts(str(label), separator, control)
        }
        return cls(
            (control, *sorted(parts | alone)),
            tuple(sorted({str(label) for label in batches})),
            tuple(sorted({str(label) for label in cell_types})),
            separator,
        )

    @property
    def control(self) -> str:
        """Label of the unperturbed cells."""
        return self.perturbations[0]

    def is_control(self, labels: Iterable[str]) -> np.ndarray:
        """Return a boolean array: which labels name the control."""
        return np.asarray([str(label) == self.control for label in labels], dtype=bool)

    def perturbation_matrix(self, labels: Labels, doses: Doses | None = None) -> np.ndarray:
        """Return the perturbation vectors, shape ``(n, K)``, float32; the control is zero.

        Parameters
        ----------
        labels
            One label a row, possibly a combination such as ``A+B``.
        doses
            Non-negative multipliers, one a row; 1 where not given.

        Raises
        ------
        UnknownLabelError
            If a part of a label is not in the vocabulary; the known ones are listed.
        DataError
            If a dose is negative or not finite.
        """
        codes, unique = pd.factorize(np.asarray(labels, dtype=object))
        parts = {part for label in unique for part in self._parts(str(label))}
        if unknown := sorted(parts - set(self._columns)):
            raise _unknown("perturbation", unknown, self.perturbations)
        rows = (
            np.stack([self._row(str(label)) for label in unique])
            if len(unique)
            else np.zeros((0, len(self.perturbations)), dtype=np.float32)
        )
        if (codes < 0).any():
            raise DataError(
                f"perturbation: {int((codes < 0).sum())} of {len(codes)} labels are missing"
            )
        matrix = rows[codes]
        if doses is None:
            return matrix
        scale = np.asarray(doses, dtype=np.float32)
        is_treated = matrix.any(axis=1)
        bad = is_treated & ~(np.isfinite(scale) & (scale >= 0))
        if bad.any():
            raise DataError(
                f"dose: {int(bad.sum())} of {len(bad)} doses are negative or not finite, "
                f"for example {scale[bad][0]} for '{np.asarray(labels)[bad][0]}' in row "
                f"{int(np.argmax(bad)) + 1}"
            )
        return matrix * np.where(is_treated, scale, 0.0).astype(np.float32)[:, None]

    def batch_codes(self, labels: Labels) -> np.ndarray:
        """Return the batches' column numbers, int64; unknown labels are an error."""
        return _codes(labels, self.batches, "batch")

    def cell_type_codes(self, labels: Labels) -> np.ndarray:
        """Return the cell types' column numbers, int64; unknown labels are an error."""
        return _codes(labels, self.cell_types, "cell type")

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        values = asdict(self)
        del values["_columns"]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Vocabulary":
        """Rebuild from :meth:`to_json`."""
        return cls(
            tuple(values["perturbations"]),
            tuple(values["batches"]),
            tuple(values["cell_types"]),
            values["separator"],
        )

    def _row(self, label: str) -> np.ndarray:
        row = np.zeros(len(self.perturbations), dtype=np.float32)
        for part in self._parts(label):
            row[self._columns[part]] = 1.0
        return row

    def _parts(self, label: str) -> tuple[str, ...]:
        return perturbing_parts(label, self.separator, self.control)


def split_label(label: str, separator: str) -> tuple[str, ...]:
    """Return the parts of a combination, or the label alone."""
    if not separator or separator not in label:
        return (label,)
    return tuple(part.strip() for part in label.split(separator) if part.strip())


def perturbing_parts(label: str, separator: str, control: str) -> tuple[str, ...]:
    """Return the parts of a label that perturb, none of the control.

    The control adds nothing to a combination. Its label may hold the separator, as in
    ``NegCtrl_NegCtrl``: what it is made of adds nothing either, though alone it is no control.
    """
    parts = split_label(label, separator)
    if len(parts) == 1:
        return () if label == control else parts
    nothing = {control, *split_label(control, separator)}
    return tuple(part for part in parts if part not in nothing)


def _codes(labels: Labels, known: tuple[str, ...], what: str) -> np.ndarray:
    asked = pd.Index(np.asarray(labels, dtype=object).astype(str), dtype=object)
    codes = pd.Index(known, dtype=object).get_indexer(asked)
    if (codes < 0).any():
        unknown = sorted(set(asked[codes < 0]))
        raise _unknown(what, unknown, known, f"; for another {what}, train with its controls")
    return codes.astype(np.int64)


def _unknown(
    what: str, unknown: Sequence[str], known: Sequence[str], remedy: str = ""
) -> UnknownLabelError:
    """Return the error that names them; of very many the first."""
    there = f"; the model knows {listed(known, 60)}{remedy}"
    named = unknown[:_MOST_NAMED]
    lines = [f"unknown {what} '{name}'{suggest(name, known)}{there}" for name in named]
    if len(unknown) > _MOST_NAMED:
        lines.append(f"and {len(unknown) - _MOST_NAMED:,} more that are unknown")
    return UnknownLabelError("\n".join(lines))
