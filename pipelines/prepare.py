"""Stage ``prepare``: validate the cells, and split them."""

from pathlib import Path

import pandas as pd

from cfmvc.data.canonical import load_cells, write_canonical
from cfmvc.data.cell_ids import CELL_ID, cell_ids
from cfmvc.data.config import DataConfig, SplitConfig
from cfmvc.data.splits import assign_split
from cfmvc.files import md5_of_file, write_json
from pipelines._paths import PREPARED, SPLIT
from pipelines._stage import stage


def main() -> None:
    with stage("prepare") as run:
        data = run.section("data", DataConfig)
        source = Path(data.path)
        cells = load_cells(source, data)
        split = assign_split(
            cells.obs, run.section("split", SplitConfig), data.separator, data.control
        )
        cells.obs["split"] = pd.Categorical(split.labels)
        cells.obs[CELL_ID] = cell_ids(cells)
        write_canonical(cells, PREPARED)
        record = {**split.to_json(), "data": data.path, "data_md5": md5_of_file(source)}
        write_json(SPLIT, record)
        run.tracker.set_tags(
            {"cfmvc.split_sha256": split.sha256, "cfmvc.data_md5": record["data_md5"]}
        )
        run.tracker.log_metrics({f"n_{k}_cells": n for k, n in record["n_cells"].items()}, step=0)
        run.tracker.log_artifact(SPLIT)


if __name__ == "__main__":
    main()
