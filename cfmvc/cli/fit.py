"""``cfmvc fit``: a model from one file, without DVC."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cfmvc.cli.importing import uncollected


def fit_command(
    train: Annotated[Path, typer.Argument(help="AnnData file of raw counts (.h5ad).")],
    out: Annotated[Path, typer.Option(help="Folder of the model to write.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter, e.g. flow.lr=1e-3; may be repeated."),
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="A column of yours, e.g. perturbation=guide_identity."),
    ] = None,
    control: Annotated[str | None, typer.Option(help="Label of the unperturbed cells.")] = None,
    separator: Annotated[
        str | None,
        typer.Option(help="Joins the parts of a combination [default: data.separator]; '': none."),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="CSV: a row a perturbation, its label and its vector (a gene's embedding, a "
            "drug's fingerprint), seen or not; a header is optional "
            "[default: uns or obsm['perturbation_embeddings']]."
        ),
    ] = None,
    params: Annotated[
        Path | None, typer.Option(help="Parameter file [default: the one shipped with cfmvc].")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of a killed fit.")
    ] = False,
    track: Annotated[
        bool, typer.Option("--track", help="Log to MLflow (MLFLOW_TRACKING_URI, or ./mlflow.db).")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a model, or an unfinished one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model on all cells of a file.

    A share of the cells (split.val_fraction) chooses the best epoch; nothing is held out.

    Example: cfmvc fit train.h5ad --out model --set flow.lr=5e-4
    """
    from cfmvc.cli.targets import check_target_model, check_unfinished

    inputs = [path for path in (train, params, embeddings) if path is not None]
    check_target_model(out, inputs, force)
    if not resume:
        check_unfinished(out, force)
    with uncollected():  # torch comes along
        from cfmvc.cli.fitting import fit_file

    result = fit_file(
        train,
        out,
        settings or [],
        mapping or [],
        control,
        params,
        track,
        resume,
        embeddings,
        separator,
    )
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"{out}: model of {result['n_perturbations']} perturbations, {result['n_batches']} batches "
        f"and {result['n_cell_types']} cell types, {result['n_genes']:,} genes, "
        f"from {result['n_cells']:,} cells\n"
        f"next: {result['next']}"
    )
