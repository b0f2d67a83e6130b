"""Stage ``evaluate``: model and baselines against the real held-out cells."""

from pathlib import Path

from cfmvc.evaluation.config import EvaluateConfig
from cfmvc.evaluation.evaluate import evaluate
from cfmvc.evaluation.figures import write_pictures
from cfmvc.evaluation.table import averages_for_plots, nested_averages, to_text, verdict
from cfmvc.files import atomic_path, write_json
from cfmvc.stages.prepared import load_prepared
from pipelines._stage import stage
from pipelines.generate import GENERATED
from pipelines.prepare import PREPARED

AVERAGES, PER_CONDITION = Path("results/evaluate.json"), Path("results/per_condition.csv")
PLOT, PICTURES = Path("results/averages.csv"), Path("results/pictures")


def main() -> None:
    with stage("evaluate") as run:
        config = run.section("evaluate", EvaluateConfig)
        cells, generated = load_prepared(PREPARED), load_prepared(GENERATED)
        evaluation = evaluate(cells, generated, config)
        write_json(AVERAGES, nested_averages(evaluation))
        with atomic_path(PER_CONDITION) as made:
            evaluation.per_condition.to_csv(made, index=False)
        with atomic_path(PLOT) as made:
            averages_for_plots(evaluation).to_csv(made, index=False)
        write_pictures(evaluation, cells, generated, config, PICTURES)
        for method, figures in nested_averages(evaluation).items():
            run.tracker.log_metrics({f"{method}.{k}": v for k, v in figures.items()}, step=0)
        run.tracker.log_artifact(PER_CONDITION)
        for picture in sorted(PICTURES.iterdir()):
            run.tracker.log_artifact(picture, "pictures")
        print(to_text(evaluation))
        print(verdict(evaluation.averages))


if __name__ == "__main__":
    main()
