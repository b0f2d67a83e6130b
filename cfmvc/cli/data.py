"""``cfmvc data check``, ``cfmvc data add`` and ``cfmvc simulate``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfmvc.cli.importing import uncollected
from cfmvc.errors import ConfigError, DataError

if TYPE_CHECKING:
    from anndata import AnnData

    from cfmvc.data.config import DataConfig
    from cfmvc.data.faults import Fault

app = typer.Typer(help="Check a data set, and make it the pipeline's input.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The cells, an .h5ad file.")]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="KEY=NAME",
        help="What the file calls a thing, e.g. --map perturbation=guide --map counts_layer=X. "
        "Keys: perturbation, batch, cell_type, dose, spatial, embeddings, counts_layer; dose= says "
        "that a column of that name is none. May be repeated.",
    ),
]
Control = Annotated[
    str | None, typer.Option("--control", metavar="LABEL", help="Label of the unperturbed cells.")
]
Separator = Annotated[
    str | None,
    typer.Option(
        "--separator",
        metavar="TEXT",
        help="What joins the parts of a combination (A+B); '' if labels are never split, as for "
        "drugs such as (+)-JQ1. That of params.yaml where not given.",
    ),
]

Layer = Annotated[
    str | None, typer.Option(help="Layer of raw counts; short for --map counts_layer=LAYER.")
]


@app.command()
def check(
    file: File,
    maps: Maps = None,
    control: Control = None,
    separator: Separator = None,
    layer: Layer = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")] = False,
) -> None:
    """Name everything that is wrong with FILE, and what to do about it.

    Errors forbid the use of the file (exit code 2), warnings do not (exit code 0). Names that are
    not given are those of params.yaml, in this folder or as shipped.
    """
    with uncollected():
        from cfmvc.data.checks import check_cells
        from cfmvc.data.faults import Fault, errors_of
        from cfmvc.data.reading import open_cells

    config = _data_config(maps, control, separator, layer)
    adata: AnnData | None = None
    try:
        adata = open_cells(file)
        faults = check_cells(adata, config)
    except DataError as error:
        message = str(error).removeprefix(f"{file}: ")
        faults = [Fault("error", str(file), message)]
    n_errors = len(errors_of(faults))
    if as_json:
        _print_json(file, adata, faults)
    else:
        _print_faults(faults)
        print(f"{file}: {_summary(adata, config)}{_verdict(n_errors, len(faults) - n_errors)}")
    if n_errors:
        raise typer.Exit(DataError.exit_code)


@app.command()
def add(
    file: File,
    name: Annotated[
        str | None, typer.Option(help="Name under data/raw; that of FILE where not given.")
    ] = None,
    maps: Maps = None,
    control: Control = None,
    separator: Separator = None,
    layer: Layer = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another file of that name.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Validate FILE, put it under DVC in data/raw, and make it the pipeline's input.

    Run it in the project's folder (the one with params.yaml), of which it changes one line,
    data.path (and data.separator, where another one is given). The copy has canonical names: layer
    counts, columns perturbation, batch, cell_type and dose, the label control.
    """
    with uncollected():
        from cfmvc.cli.project import Project
        from cfmvc.data.canonical import check_and_load
        from cfmvc.data.faults import errors_of

    project = Project.here()
    project.expect_canonical_names()
    path = project.path_of(name or file.stem)
    config = _data_config(maps, control, separator, layer)
    cells, faults, left_out = check_and_load(file, config)
    warnings = [fault for fault in faults if fault not in errors_of(faults)]
    if not as_json:
        _print_faults(warnings)
    project.store(cells, file, path, is_forced=force)
    project.put_under_dvc(path)
    changed = project.use(path, config.separator)
    if as_json:
        result = {
            "path": path.as_posix(),
            "n_cells": cells.n_obs,
            "n_genes": cells.n_vars,
            "left_out": left_out,
            "changed": changed,
            "warnings": [fault.to_json() for fault in warnings],
        }
        print(json.dumps(result, indent=2))
        return
    if left_out:
        print(f"left out, for nothing uses it: {', '.join(left_out)}")
    keys = " and ".join(changed) if "data.separator" in changed else "data.path"
    print(
        f"{path}: {_summary(cells, _as_stored(cells, config))}under DVC, and {keys} of params.yaml"
    )
    print("next: dvc repro")


def simulate_command(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The cells, an .h5ad file.")],
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The true expectation of every condition, .h5ad."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="simulate.KEY=VALUE",
            help="Change a value of the section simulate, e.g. simulate.n_cells=500.",
        ),
    ] = None,
    params: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A params.yaml; this folder's, or the one shipped."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Simulate cells whose responses to perturbations are known.

    Negative binomial counts with library sizes, batch effects, cell types, responses that depend
    on the cell's state, combinations, and on demand doses (simulate.doses=[0.5,1]) and coordinates
    (simulate.spatial=true). The same section simulate gives the same bytes.
    """
    from cfmvc.cli.targets import check_target_file

    with uncollected():
        from cfmvc.config import override, parse_section, read_yaml
        from cfmvc.data.canonical import write_canonical
        from cfmvc.data.config import SimulateConfig
        from cfmvc.data.simulate import simulate
    check_target_file(out, [], force)
    if truth is not None:
        check_target_file(truth, [], force, "--truth")
        if truth.absolute() == out.absolute():
            raise ConfigError(f"--truth {truth}: is the file of --out as well; name another")
    path = params or _params_file()
    values = read_yaml(path)
    if "simulate" not in values:
        raise ConfigError(f"{path}: no section 'simulate'")
    config = parse_section(SimulateConfig, override(values, settings or [])["simulate"], "simulate")
    cells, means = simulate(config)
    write_canonical(cells, out)
    if truth is not None:
        write_canonical(means, truth)
    if as_json:
        result = {
            "out": str(out),
            "truth": None if truth is None else str(truth),
            "n_cells": cells.n_obs,
            "n_genes": cells.n_vars,
            "n_conditions": means.n_obs,
        }
        print(json.dumps(result, indent=2))
        return
    print(f"{out}: {cells.n_obs:,} cells x {cells.n_vars:,} genes")
    if truth is not None:
        print(f"{truth}: true means of {means.n_obs:,} conditions")


def _data_config(
    maps: list[str] | None, control: str | None, separator: str | None, layer: str | None
) -> "DataConfig":
    from cfmvc.cli.columns import mapped
    from cfmvc.config import parse_section, read_yaml
    from cfmvc.data.config import DataConfig

    path = _params_file()
    data = parse_section(DataConfig, read_yaml(path).get("data") or {}, "data")
    of_layer = [] if layer is None else [f"counts_layer={layer}"]
    return mapped(data, [*(maps or []), *of_layer], control, separator)


def _params_file() -> Path:
    from cfmvc.config import default_params_file

    here = Path("params.yaml")
    return here if here.is_file() else default_params_file()


def _print_json(file: Path, adata: "AnnData | None", faults: "list[Fault]") -> None:
    report: dict[str, Any] = {
        "file": str(file),
        "is_usable": all(fault.severity != "error" for fault in faults),
        "n_cells": None if adata is None else adata.n_obs,
        "n_genes": None if adata is None else adata.n_vars,
        "faults": [fault.to_json() for fault in faults],
    }
    print(json.dumps(report, indent=2))


def _print_faults(faults: "list[Fault]") -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    for fault in faults:
        style = "bold red" if fault.severity == "error" else "yellow"
        console.print(Text.assemble((f"{fault.severity:8}", style), str(fault)))


def _as_stored(cells: "AnnData", config: "DataConfig") -> "DataConfig":
    """Return the names that a file under data/raw has for things."""
    from cfmvc.cli.project import CANONICAL

    control = cells.uns["cfmvc"]["control"]
    return config.model_copy(update={**CANONICAL, "control": control})


def _summary(adata: "AnnData | None", config: "DataConfig") -> str:
    """Say how a file was understood."""
    from cfmvc.data.understood import understood

    return "" if adata is None else f"{understood(adata, config)}: "


def _verdict(n_errors: int, n_warnings: int) -> str:
    errors = "1 error" if n_errors == 1 else f"{n_errors} errors"
    warnings = "1 warning" if n_warnings == 1 else f"{n_warnings} warnings"
    return f"{'not usable' if n_errors else 'usable'} ({errors}, {warnings})"
