"""``cfmvc predict``: virtual cells of the conditions asked for."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cfmvc.cli.importing import uncollected


def predict_command(
    model: Annotated[
        str, typer.Option(help="Folder of a model, or models:/NAME@ALIAS of an MLflow registry.")
    ],
    conditions: Annotated[
        Path,
        typer.Option(help="CSV: perturbation, batch, cell_type, n_cells and optionally dose."),
    ],
    out: Annotated[Path, typer.Option(help="AnnData file to write (.h5ad).")],
    controls: Annotated[
        Path | None,
        typer.Option(
            help="AnnData file with real control cells of the strata asked for "
            "[default: the training controls that the model keeps]."
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="CSV: label and vector of perturbations that the training did not know, in the "
            "units of its embeddings."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    n_steps: Annotated[int, typer.Option(help="Steps of the integration.", min=1)] = 20,
    method: Annotated[str, typer.Option(help="euler, midpoint, rk4 or dopri5.")] = "euler",
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="A column of the controls' file, e.g. batch=donor."),
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="Label of the unperturbed cells in the controls' file.")
    ] = None,
    means: Annotated[
        bool,
        typer.Option(
            "--means/--no-means",
            help='layers["mean"], which takes 4 bytes a cell and gene: most of memory and file.',
        ),
    ] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Generate virtual cells.

    Writes sampled counts to layers["counts"] and their expectation to layers["mean"].

    Example: cfmvc predict --model model --conditions conditions.csv --controls cells.h5ad
    --out pred.h5ad
    """
    from cfmvc.cli.targets import check_target_file

    read = [file for file in (conditions, controls, embeddings) if file is not None]
    check_target_file(out, read, force)
    with uncollected():
        from cfmvc.cli.predicting import predict_file

    result = predict_file(
        model,
        conditions,
        out,
        controls,
        seed,
        n_steps,
        method,
        mapping or [],
        control,
        device,
        embeddings,
        means,
    )
    for warning in result["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"{out}: {result['n_cells']:,} virtual cells of {result['n_conditions']} conditions, "
        f"{result['n_genes']:,} genes"
    )
    if result["n_velocity_events"]:
        print(
            f"warning: {result['n_velocity_events']} non-finite velocities were replaced by 0; "
            "see uns['cfmvc_events'] of the file"
        )
