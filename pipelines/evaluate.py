"""Stage ``evaluate``: model and baselines against the real held-out cells."""

import textwrap
from pathlib import Path
from typing import Any

from anndata import AnnData

from cfmvc.data.prepared import control_of, load_prepared, separator_of
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.evaluate import evaluate
from cfmvc.evaluation.figures import methods_by_condition, populations, shifts
from cfmvc.evaluation.report import to_html
from cfmvc.evaluation.table import to_bars_csv, to_csv, to_metrics, to_text, verdict
from cfmvc.files import atomic_path, md5_of_file, read_json, write_json
from pipelines._paths import ARITHMETIC, AVERAGES, GENERATED, PREPARED, SPLIT
from pipelines._stage import stage

TABLE = Path("results/evaluation.txt")
PER_CONDITION = Path("results/per_condition.csv")
BARS = Path("results/energy_distance.csv")
REPORT = Path("results/report.html")
PICTURES = Path("results/pictures")
TITLE = "Virtual cells against the real held-out cells"


def main() -> None:
    with stage("evaluate") as run:
        config = run.section("evaluate", EvaluateConfig)
        cells, generated = load_prepared(PREPARED), load_prepared(GENERATED)
        evaluation = evaluate(
            cells,
            generated,
            config,
            control_of(cells),
            separator_of(cells),
            {"latent_arithmetic": load_prepared(ARITHMETIC)},
        )
        averages = to_metrics(evaluation)
        write_json(AVERAGES, averages)
        sentences = [textwrap.fill(sentence, 118) for sentence in verdict(evaluation)]
        text = "\n".join([to_text(evaluation), *sentences]) + "\n"
        page = to_html(evaluation, TITLE, _facts(read_json(SPLIT), generated, config))
        written = {TABLE: text, PER_CONDITION: to_csv(evaluation), REPORT: page}
        written[BARS] = to_bars_csv(evaluation, "energy_distance")
        for path, content in written.items():
            with atomic_path(path) as made:
                made.write_text(content)
            run.tracker.log_artifact(path)
        figures = {
            "methods_by_condition.png": methods_by_condition(evaluation),
            "shifts.png": shifts(evaluation),
            "populations.png": populations(evaluation),
        }
        with atomic_path(PICTURES) as made:
            made.mkdir()
            for name, figure in figures.items():
                figure.savefig(made / name, dpi=110)
        for name in figures:
            run.tracker.log_artifact(PICTURES / name, "pictures")
        for method, scores in averages.items():
            if isinstance(scores, dict):
                named = {f"{method}/{metric}": value for metric, value in scores.items()}
                run.tracker.log_metrics(named, step=0)
        print(text)


def _facts(split: dict[str, Any], generated: AnnData, config: EvaluateConfig) -> dict[str, str]:
    """Return what was evaluated; the same inputs give the same words, so no run or time is here."""
    n_cells = split["n_cells"]
    held_out = "; ".join(" x ".join(map(str, entry.values())) for entry in split["held_out"])
    return {
        "Data": f"{split['data']} (md5 {split['data_md5']})",
        "Split": f"{split['kind'].replace('_', ' ')} (sha256 {split['sha256'][:16]}): "
        f"{n_cells['train']:,} cells to train on, {n_cells['val']:,} to validate, "
        f"{n_cells['test']:,} to test",
        "Held out": held_out or f"{split['kind']} cells",
        "Model": f"{generated.n_obs:,} generated cells of {generated.n_vars:,} genes, "
        f"{GENERATED} (md5 {md5_of_file(GENERATED)})",
        "Scoring": f"{config.n_top_genes} top genes, {config.n_components} principal components, "
        f"{config.n_draws} draws of other cells, {config.n_bootstrap:,} of other conditions, "
        f"seed {config.seed}",
        "Difficulty": f"solved from {config.solved_at:.0%} of the way from control to ceiling on, "
        f"resistant below {config.resistant_below:.0%}",
    }


if __name__ == "__main__":
    main()
