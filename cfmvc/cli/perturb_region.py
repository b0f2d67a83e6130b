"""``cfmvc perturb-region``: a perturbation in a region of a tissue, and the change as a map."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cfmvc.cli.importing import uncollected
from cfmvc.errors import ConfigError


def perturb_region_command(
    model: Annotated[
        str, typer.Option(help="Folder of a model, or models:/NAME@ALIAS of an MLflow registry.")
    ],
    cells: Annotated[
        Path, typer.Option(help="AnnData file of the tissue: counts and obsm['spatial'].")
    ],
    perturbation: Annotated[str, typer.Option(help="Label; a combination as A+B.")],
    region: Annotated[
        str,
        typer.Option(
            help="x0,x1,y0,y1 or x0,x1,y0,y1,z0,z1 (borders included); circle:x,y,r; "
            "'polygon:x1,y1;x2,y2;x3,y3' (3 corners or more; in quotes, for the shell); "
            "obs:COLUMN=VALUE for an annotated region. In the units of obsm['spatial']; circles "
            "and polygons are of x and y, whatever z."
        ),
    ],
    out: Annotated[Path, typer.Option(help="AnnData file to write (.h5ad).")],
    dose: Annotated[
        float | None, typer.Option(help="In the units of the training [default: 1].")
    ] = None,
    batch: Annotated[
        list[str] | None,
        typer.Option(
            help="Only cells of this batch, e.g. of one section; may be given several times "
            "[default: of all]."
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Map of the change to draw (.png, .svg or .pdf).")
    ] = None,
    genes: Annotated[
        str | None, typer.Option(help="Genes to draw and to report, e.g. CXCL10,ISG15.")
    ] = None,
    n_genes: Annotated[
        int | None,
        typer.Option(help="... or so many that change most [default: 1].", min=1, max=12),
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
        typer.Option("--map", help="A column of the file, e.g. batch=donor or spatial=X_um."),
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="Label of the unperturbed cells in the file.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Perturb a region of a tissue, and map the predicted change.

    Every control cell of the region becomes what it would be under the perturbation, at its own
    coordinates; all other cells stay as they are. Writes all cells, changed counts in
    layers["counts"], the expected change of each gene in layers["change"], and in_region and
    change (its size) in obs. X, raw, other layers and obsm but the coordinates are left out.

    Example: cfmvc perturb-region --model model --cells tissue.h5ad --perturbation IFNb
    --region circle:500,300,120 --out changed.h5ad --picture change.png
    """
    from cfmvc.cli.targets import check_target_file

    if genes is not None and n_genes is not None:
        raise ConfigError("--genes, --n-genes: give one of them")
    read = [cells, *([] if embeddings is None else [embeddings])]
    check_target_file(out, read, force)
    if picture is not None:
        check_target_file(picture, read, force, "--picture", suffix=None)
        if picture.absolute() == out.absolute():
            raise ConfigError(f"--picture {picture}: is the file of --out as well; name another")
    with uncollected():
        from cfmvc.cli.perturbing import RegionOrder, perturb_region_file

    named = None if genes is None else [gene.strip() for gene in genes.split(",") if gene.strip()]
    order = RegionOrder(
        perturbation, dose, region, batch or None, named, n_genes or 1, seed, n_steps, method
    )
    result = perturb_region_file(
        model, cells, order, out, picture, mapping or [], control, device, embeddings
    )
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"{out}: {perturbation} in {region}, on {result['n_changed']:,} control cells of "
        f"{result['n_in_region']:,} there and {result['n_cells']:,} in all"
    )
    changes = ", ".join(f"{gene} {change:+.3f}" for gene, change in result["genes"].items())
    print(f"mean change (log space): {changes}")
    if picture is not None:
        print(f"{picture}: where, and how much")
    if result["n_velocity_events"]:
        print(
            f"warning: {result['n_velocity_events']} non-finite velocities were replaced by 0; "
            "see uns['cfmvc_events'] of the file"
        )
