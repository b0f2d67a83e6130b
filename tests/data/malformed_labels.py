"""Malformed labels, doses and coordinates, and the exact words that each earns."""

import numpy as np

from tests.data import malformed as broken
from tests.data.malformed import Breaker, dose, label, rename

TWO_ARMS = "cells of at least one perturbation and of the control are needed"
NO_CONTROL = "name the label of the unperturbed cells with --control LABEL"
UNMEASURED = "their effects cannot be measured, nor started from their own controls"
CONFOUNDED = "the effect of the perturbation cannot be told from that of the batch"
APART = (
    "the effects of its parts cannot be told apart; if they are no parts, set data.separator "
    "(--separator), now '+', to ''"
)
SYNONYMS = "the control adds nothing to a combination, and the order of its parts is free"
DOSE = "a dose is a number, 0 or more; if the column is of something else, --map dose="
NO_PLACE = "if it is of something else, --map spatial="

# name, how to break a good data set, all its faults (errors first)
CASES: list[tuple[str, Breaker, list[str]]] = [
    (
        "column missing",
        broken.column_gone,
        [
            "error: obs['batch']: no such column; the file has 'perturbation', "
            "'cell_type'; name the column of the batch with --map batch=COLUMN; "
            "of one alone, adata.obs['batch'] = 'all'",
        ],
    ),
    (
        "column misspelt",
        broken.column_misspelt,
        [
            "error: obs['cell_type']: no such column (did you mean 'Cell type'?); the "
            "file has 'perturbation', 'batch', 'Cell type'; name the column of the cell "
            "type with --map cell_type=COLUMN; of one alone, adata.obs['cell_type'] = 'all'",
        ],
    ),
    (
        "all columns missing",
        broken.all_columns_gone,
        [
            "error: obs['perturbation']: no such column; the file has no column; name "
            "the column of the perturbation with --map perturbation=COLUMN",
            "error: obs['batch']: no such column; the file has no column; name the "
            "column of the batch with --map batch=COLUMN; of one alone, adata.obs['batch'] = 'all'",
            "error: obs['cell_type']: no such column; the file has no column; name the "
            "column of the cell type with --map cell_type=COLUMN; of one alone, "
            "adata.obs['cell_type'] = 'all'",
        ],
    ),
    (
        "column twice",
        broken.two_columns_of_one_name,
        [
            "error: obs['batch']: several columns have this name; keep one of them",
        ],
    ),
    (
        "labels missing",
        label("cell_type", None, 1, 2),
        [
            "error: obs['cell_type']: 2 of 60 cells have no label (first: cell 'cell1'); "
            "label or remove them",
        ],
    ),
    (
        "labels blank",
        label("batch", "  ", 10),
        [
            "error: obs['batch']: 1 of 60 cells have a blank label (first: cell "
            "'cell10'); label or remove them",
        ],
    ),
    (
        "labels padded",
        label("batch", " b1", 0),
        [
            "warning: obs['batch']: 1 of 60 cells have blanks around the label (first: "
            "cell 'cell0'); removed on reading",
        ],
    ),
    (
        "labels like a missing one",
        label("cell_type", "nan", *range(12)),
        [
            "warning: obs['cell_type']: 12 of 60 cells are labelled 'nan' (first: cell "
            "'cell0'); is that a missing label?",
            "warning: obs['batch'], obs['cell_type']: 6 of 6 strata have fewer than 5 controls: "
            "b1 / B cell (4), b1 / T (4), b1 / nan (2), b2 / B cell (4), b2 / T (4), b2 / nan "
            "(2); shifts from so few are mostly their noise, and are not scored",
        ],
    ),
    (
        "labels are numbers",
        broken.column("batch", np.linspace(0, 1, 60)),
        [
            "error: obs['batch']: holds numbers such as 0.0169492, not labels; name the "
            "column of the batch with --map batch=COLUMN",
        ],
    ),
    (
        "labels in two cases",
        label("batch", "B1", *range(0, 60, 6)),
        [
            "warning: obs['batch']: 'B1', 'b1' differ only in upper and lower case; if "
            "they are one label, spell it one way",
            "warning: obs['batch'], obs['cell_type']: 2 of 6 strata have no control "
            f"cell: b1 / B cell (10), b1 / T (10); {UNMEASURED}",
        ],
    ),
    (
        "unused category",
        broken.unused_category,
        [
            "warning: obs['cell_type']: 1 category is not used by any cell: 'NK'; "
            "dropped on reading",
        ],
    ),
    (
        "no control",
        rename("perturbation", "control", "C"),
        [
            "error: obs['perturbation']: no cell is labelled 'control', the control; "
            f"labels are 'A', 'B', 'C'; {NO_CONTROL}",
        ],
    ),
    (
        "control misspelt",
        rename("perturbation", "control", "Contrl"),
        [
            "error: obs['perturbation']: no cell is labelled 'control', the control (did "
            f"you mean 'Contrl'?); labels are 'A', 'B', 'Contrl'; {NO_CONTROL}",
        ],
    ),
    (
        "control by another name",
        rename("perturbation", "control", "DMSO"),
        [
            "error: obs['perturbation']: no cell is labelled 'control', the control (did "
            f"you mean 'DMSO'?); labels are 'A', 'B', 'DMSO'; {NO_CONTROL}",
        ],
    ),
    (
        "only controls",
        broken.column("perturbation", "control"),
        [
            f"error: obs['perturbation']: every cell is a control ('control'); {TWO_ARMS}",
        ],
    ),
    (
        "one label, no control",
        broken.column("perturbation", "A"),
        [
            "error: obs['perturbation']: no cell is labelled 'control', the control; "
            f"labels are 'A'; {NO_CONTROL}",
            f"error: obs['perturbation']: every cell is labelled 'A'; {TWO_ARMS}",
        ],
    ),
    (
        "combination with an empty part",
        label("perturbation", "A+", 1, 4),
        [
            "error: obs['perturbation']: 2 of 60 cells are labelled 'A+', a combination "
            "with an empty part; rename it, or set data.separator (--separator), now '+', "
            "to '' or another",
        ],
    ),
    (
        "combination of unknown parts",
        label("perturbation", "A+C", *range(1, 60, 6)),
        [
            "warning: obs['perturbation']: of the combination 'A+C', 'C' never occurs "
            f"alone; {APART}",
        ],
    ),
    (
        "combination of wholly unknown parts",
        label("perturbation", "D+C", *range(1, 60, 6)),
        [
            "warning: obs['perturbation']: of the combination 'D+C', 'D', 'C' never "
            f"occur alone; {APART}",
        ],
    ),
    (
        "control in a combination",
        label("perturbation", "A+control", *range(1, 60, 6)),
        [
            "warning: obs['perturbation']: labels that mean the same are read as one: "
            f"'A+control' as 'A'; {SYNONYMS}",
        ],
    ),
    (
        "combination spelt twice",
        broken.all_of(
            label("perturbation", "A+B", *range(1, 60, 6)),
            label("perturbation", "B+A", *range(2, 60, 6)),
        ),
        [
            "warning: obs['perturbation']: labels that mean the same are read as one: "
            f"'B+A' as 'A+B'; {SYNONYMS}",
        ],
    ),
    (
        "few cells of a perturbation",
        label("perturbation", "C", 1, 2),
        [
            "warning: obs['perturbation']: 1 of 4 perturbations have fewer than 5 cells: "
            "C (2); leave them out, or expect noise",
        ],
    ),
    (
        "stratum with few cells",
        broken.small_stratum,
        [
            "warning: obs['batch'], obs['cell_type']: 1 of 3 strata have fewer than 5 "
            "cells: b3 / T (3); predictions for them rest on little",
            "warning: obs['batch'], obs['cell_type']: 1 of 3 strata have fewer than 5 controls: "
            "b3 / T (1); shifts from so few are mostly their noise, and are not scored",
        ],
    ),
    (
        "stratum without control",
        broken.stratum_without_control,
        [
            "warning: obs['batch'], obs['cell_type']: 1 of 4 strata have no control "
            f"cell: b2 / T (10); {UNMEASURED}",
        ],
    ),
    (
        "confounded with batch",
        broken.batch_by_arm,
        [
            "warning: obs['batch'], obs['cell_type']: 2 of 4 strata have no control "
            f"cell: b2 / B cell (20), b2 / T (20); {UNMEASURED}",
            "warning: obs['perturbation'], obs['batch']: confounded with batch: 'A' in "
            f"b2; 'B' in b2, the control in b1, and no batch has both; {CONFOUNDED}",
        ],
    ),
    (
        "dose negative",
        dose(-1.0, 1),
        [
            "error: obs['dose']: 1 of 60 cells have a negative dose (first: cell "
            f"'cell1': -1.0); {DOSE}",
        ],
    ),
    (
        "dose missing",
        dose(np.nan, 1, 2),
        [
            "error: obs['dose']: 2 of 60 cells are perturbed and have no dose (first: "
            f"cell 'cell1'); {DOSE}",
        ],
    ),
    (
        "dose infinite",
        dose(np.inf, 1),
        [
            "error: obs['dose']: 1 of 60 cells have an infinite dose (first: cell "
            f"'cell1': inf); {DOSE}",
        ],
    ),
    (
        "dose is text",
        dose("high", 1, 4),
        [
            "error: obs['dose']: 2 of 60 cells have a dose that is not a number (first: "
            f"cell 'cell1': high); {DOSE}",
        ],
    ),
    (
        "dose zero",
        dose(0.0, 1),
        [
            "warning: obs['dose']: 1 of 60 cells are perturbed with dose 0, so not at "
            f"all (first: cell 'cell1': 0.0); {DOSE}",
        ],
    ),
    (
        "coordinates in one column",
        broken.places(np.zeros((60, 1))),
        [
            "error: obsm['spatial']: coordinates have 1 column, not 2 or 3; keep x, y (and z); "
            f"{NO_PLACE}",
        ],
    ),
    (
        "coordinates in four columns",
        broken.places(np.zeros((60, 4))),
        [
            "error: obsm['spatial']: coordinates have 4 columns, not 2 or 3; keep x, y (and z); "
            f"{NO_PLACE}",
        ],
    ),
    (
        "coordinates NaN",
        broken.places(np.where(np.arange(120).reshape(60, 2) == 6, np.nan, 1.0)),
        [
            "error: obsm['spatial']: 1 of 60 cells have NaN or infinite coordinates "
            "(first: cell 'cell3'); remove these cells, or do without the coordinates: "
            "--map spatial=",
        ],
    ),
    (
        "coordinates are text",
        broken.places(np.full((60, 2), "here")),
        [
            "error: obsm['spatial']: coordinates are not numbers; store them as floats; "
            f"{NO_PLACE}",
        ],
    ),
]
