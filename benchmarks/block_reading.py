"""Shuffled cells from a disk: our blocks of an h5ad file beside annbatch's chunks of a zarr folder.

python -m benchmarks.block_reading [--cells 200000] [--rounds 3]

annbatch needs Python 3.12: `pip install annbatch zarrs` in an environment of its own. Without it
our side alone is measured.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import zarr
from anndata import read_h5ad

from benchmarks.big_file import N_GENES, write_big_file
from cfmvc.data.on_disk import CountsOnDisk
from cfmvc.data.reading import open_cells
from cfmvc.data.samplers import ROWS_PER_BLOCK, ROWS_PER_WINDOW, ShuffledBlocks

_CELLS_PER_STEP = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=200_000, help="number of cells")
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each side, in turn")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sides = _sides(Path(name), arguments.cells)
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(arguments.rounds + 1):  # the first one warms the file cache
            for side, epoch in sides.items():
                started = time.perf_counter()
                n_seen = epoch()
                seconds[side].append(time.perf_counter() - started)
                assert n_seen == arguments.cells, (side, n_seen)
    print(
        f"{arguments.cells:,} cells x {N_GENES:,} genes, {_CELLS_PER_STEP} at a time, blocks of "
        f"{ROWS_PER_BLOCK} neighbours, windows of {ROWS_PER_WINDOW:,}; cells/s, median (min - max)"
    )
    for side, taken in seconds.items():
        rates = [arguments.cells / one for one in taken[1:]]
        print(f"{side:<48}{median(rates):>10,.0f} ({min(rates):,.0f} - {max(rates):,.0f})")


def _sides(folder: Path, n_cells: int) -> dict[str, Callable[[], int]]:
    path = folder / "cells.h5ad"
    write_big_file(path, n_cells)
    sides = {"ours, h5ad (lzf)": lambda: _our_epoch(path)}
    if find_spec("annbatch"):
        store = folder / "cells.zarr"
        _write_sharded(path, store)
        sides["annbatch, sharded zarr"] = lambda: _annbatch_epoch(store)
    return sides


def _our_epoch(path: Path) -> int:
    counts = CountsOnDisk(open_cells(path, 0).layers["counts"])
    order, n_seen = ShuffledBlocks(counts.shape[0], _CELLS_PER_STEP, 0), 0
    for window in order.windows(0):
        held = counts[window]
        for start in range(0, len(window), _CELLS_PER_STEP):
            n_seen += held[start : start + _CELLS_PER_STEP].shape[0]
    return n_seen


def _write_sharded(path: Path, store: Path) -> None:
    from annbatch import write_sharded

    cells = read_h5ad(path)
    cells.X = cells.layers.pop("counts")
    write_sharded(zarr.open_group(store, mode="w", zarr_format=3), cells)


def _annbatch_epoch(store: Path) -> int:
    import zarrs  # noqa: F401 - registers its codec pipeline
    from annbatch import Loader
    from anndata.io import sparse_dataset

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    loader = Loader(
        chunk_size=ROWS_PER_BLOCK,
        preload_nchunks=ROWS_PER_WINDOW // ROWS_PER_BLOCK,
        batch_size=_CELLS_PER_STEP,
        shuffle=True,
        preload_to_gpu=False,
    )
    loader.add_dataset(sparse_dataset(zarr.open_group(store, mode="r")["X"]))
    return sum(part["X"].shape[0] for part in loader)


if __name__ == "__main__":
    main()
