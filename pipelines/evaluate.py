"""Stage ``evaluate``: model and baselines against the real held-out cells."""

import textwrap
from pathlib import Path

from cfmvc.data.prepared import load_prepared
from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.evaluate import evaluate
from cfmvc.evaluation.figures import methods_by_condition, populations, shifts
from cfmvc.evaluation.table import to_csv, to_metrics, to_text, verdict
from cfmvc.files import atomic_path, write_json
from pipelines._paths import ARITHMETIC, AVERAGES, GENERATED, PREPARED
from pipelines._stage import stage

TABLE = Path("results/evaluation.txt")
PER_CONDITION = Path("results/per_condition.csv")
PICTURES = Path("results/pictures")


def main() -> None:
    with stage("evaluate") as run:
        config = run.section("evaluate", EvaluateConfig)
        cells, generated = load_prepared(PREPARED), load_prepared(GENERATED)
        names = cells.uns["cfmvc"]
        evaluation = evaluate(
            cells,
            generated,
            config,
            str(names["control"]),
            str(names["separator"]),
            {"latent_arithmetic": load_prepared(ARITHMETIC)},
        )
        averages = to_metrics(evaluation)
        write_json(AVERAGES, averages)
        sentences = [textwrap.fill(sentence, 118) for sentence in verdict(evaluation)]
        text = "\n".join([to_text(evaluation), *sentences]) + "\n"
        for path, content in ((TABLE, text), (PER_CONDITION, to_csv(evaluation))):
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


if __name__ == "__main__":
    main()
