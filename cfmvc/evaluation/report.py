"""An evaluation as one HTML page that needs nothing but itself.

No network, no file beside it, nothing that JavaScript is needed for (it sorts and filters one
table). The same evaluation gives the same bytes.
"""

import base64
import hashlib
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from cfmvc.evaluation.figures import GENES, POPULATIONS, colour_of
from cfmvc.evaluation.metrics import METRICS, heading, shown
from cfmvc.evaluation.report_bars import tracks
from cfmvc.evaluation.report_pictures import pictures
from cfmvc.evaluation.report_tables import averages, every_score, hardness, lead, worst_first
from cfmvc.evaluation.result import CEILING, MODEL, Evaluation
from cfmvc.evaluation.table import notes, verdict

MOST_BARS = 60
MOST_PICTURES = 12
# Of what the metrics look at, one of each kind: a reader compares four columns, not seventeen.
MAIN = ("energy_distance", "pearson_delta", "mse_top50", "variance_ratio_top50")


def to_html(evaluation: Evaluation, title: str, facts: Mapping[str, str]) -> str:
    """Return the page.

    Parameters
    ----------
    evaluation
        What to show.
    title
        Of the page.
    facts
        What was evaluated, in the order given: what is not in the evaluation itself, such as data,
        split and model. Whatever they hold is text, never HTML. For a page that is the same for the
        same evaluation they hold no time and no name of a run.
    """
    environment = Environment(
        loader=PackageLoader("cfmvc.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "heading": heading, "colour": colour_of}
    script = environment.get_template("report.js").render()
    conditions = worst_first(evaluation)
    main = [metric for metric in MAIN if metric in evaluation.averages.columns]
    return environment.get_template("report.html").render(
        title=title,
        facts=facts,
        evaluation=evaluation,
        has_model=MODEL in evaluation.averages.index,
        model=MODEL,
        ceiling=CEILING,
        lead=lead(evaluation),
        verdict=verdict(evaluation),
        averages=averages(evaluation),
        hardness=hardness(evaluation, main),
        main=main,
        tracks=tracks(evaluation, conditions[:MOST_BARS], main),
        conditions=conditions,
        populations=POPULATIONS,
        genes=GENES,
        pictures=pictures(evaluation, conditions[:MOST_PICTURES], main),
        scores=every_score(evaluation, conditions),
        metrics={name: METRICS[name] for name in evaluation.averages.columns},
        notes=notes(evaluation),
        script=script,
        script_hash=_hash(script),
    )


def _hash(script: str) -> str:
    """Return what the page's policy knows its script by; no other script runs in it."""
    digest = hashlib.sha256(script.encode()).digest()
    return base64.b64encode(digest).decode()
