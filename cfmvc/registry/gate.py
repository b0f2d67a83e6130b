"""The decision: better than every baseline and than the champion, by more than chance.

Candidate and rivals are scored on the same cells, so that differences are taken condition by
condition and draw by draw (a paired bootstrap); what all of them share does not blur them.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cfmvc.evaluation.metrics import METRICS, shown
from cfmvc.evaluation.randomness import random_generator
from cfmvc.evaluation.result import MODEL, Evaluation
from cfmvc.registry.config import GateConfig

CHAMPION_NAME = "champion"
_VARIANCE = "variance_ratio_top50"
# Conditions of which it is known how far they lie apart. Of fewer, Student's t would let nothing
# pass, not even the truth; they have to agree.
_FEWEST = 5


@dataclass(frozen=True)
class Comparison:
    """Candidate and one rival in one metric.

    Parameters
    ----------
    rival, metric
        Names.
    candidate, other
        Averages over the conditions.
    gain
        How much better the candidate is: above 0 is better, whatever the metric's direction.
    at_least
        The gain that other conditions and cells would give, at the stated confidence.
    """

    rival: str
    metric: str
    candidate: float
    other: float
    gain: float
    at_least: float

    @property
    def is_won(self) -> bool:
        """Whether the candidate is better by more than chance."""
        return self.at_least > 0.0


@dataclass(frozen=True)
class Facts:
    """What is known of a candidate beside its predictions; None: nobody has recorded it.

    Parameters
    ----------
    nan_steps
        Updates vetoed in its training.
    peak_memory_gib
        The largest of its stages.
    predict_seconds
        To generate 1,000 cells.
    """

    nan_steps: int | None
    peak_memory_gib: float | None
    predict_seconds: float | None


@dataclass(frozen=True)
class Verdict:
    """What the gate has decided, and why.

    Parameters
    ----------
    is_passed
        Whether every comparison is won and every guard is kept.
    reasons
        In words; of a refusal, the most telling first.
    comparisons
        Of every required metric with every rival.
    facts
        What the guards looked at.
    void
        Why there is no comparison with the champion, and what to do; None: there is one, or no
        champion.
    """

    is_passed: bool
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    facts: Facts
    void: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return {
            "is_passed": self.is_passed,
            "reasons": list(self.reasons),
            "void": self.void,
            "comparisons": [{**asdict(c), "is_won": c.is_won} for c in self.comparisons],
            "facts": asdict(self.facts),
        }


def decide(
    evaluation: Evaluation,
    config: GateConfig,
    facts: Facts,
    seed: int = 0,
    void: str | None = None,
) -> Verdict:
    """Judge a candidate by its evaluation.

    Parameters
    ----------
    evaluation
        Of the candidate as the model, the baselines, and the champion, where there is one, among
        the rivals.
    config
        The ``gate`` section.
    facts
        What the guards look at.
    seed
        Of the conditions drawn.
    void
        Why the champion could not be compared, if it could not: that refuses, whatever the rest
        is, for who beats baselines alone is not better than a champion.
    """
    metrics = [name for name in config.metrics if name in evaluation.averages.columns]
    comparisons = tuple(
        _compared(evaluation, rival, metric, config, seed)
        for rival in evaluation.baselines
        for metric in metrics
    )
    broken = [*_broken_guards(evaluation, config, facts), *_lost(comparisons, config)]
    if not metrics:
        broken.append(
            f"none of the required metrics ({', '.join(config.metrics)}) is defined on these data"
        )
    if void is not None:
        broken.insert(0, void)
    if broken:
        return Verdict(False, tuple(broken), comparisons, facts, void)
    rivals = ", ".join(shown(name) for name in evaluation.baselines)
    won = (
        f"better than {rivals} in {', '.join(metrics)}, by more than chance "
        f"({config.confidence:.0%}, {evaluation.n_conditions} held-out conditions)"
    )
    return Verdict(True, (won,), comparisons, facts)


def _compared(
    evaluation: Evaluation, rival: str, metric: str, config: GateConfig, seed: int
) -> Comparison:
    loss = np.vectorize(METRICS[metric].loss, otypes=[np.float64])
    gains = (
        evaluation.scores(rival, metric)
        .mapped(loss)
        .minus(evaluation.scores(MODEL, metric).mapped(loss))
        .defined()
    )
    is_known = len(gains.values) >= _FEWEST
    rng = random_generator(seed, "gate", metric)
    means = gains.means(config.n_bootstrap, rng, stretched=is_known)
    return Comparison(
        rival,
        metric,
        float(evaluation.averages.loc[MODEL, metric]),
        float(evaluation.averages.loc[rival, metric]),
        float(gains.values.mean()),
        float(np.quantile(means, 1.0 - config.confidence)),
    )


def _lost(comparisons: tuple[Comparison, ...], config: GateConfig) -> list[str]:
    """Say what was lost against whom; the champion first."""
    lost = [comparison for comparison in comparisons if not comparison.is_won]
    lost.sort(key=lambda comparison: comparison.rival != CHAMPION_NAME)
    return [
        f"{c.metric} is {_how(c, config)} {_named(c.rival)}: {c.candidate:.3f} against "
        f"{c.other:.3f} (gain {c.gain:+.3f}, at least {c.at_least:+.3f})"
        for c in lost
    ]


def _how(comparison: Comparison, config: GateConfig) -> str:
    if comparison.gain > 0:
        return f"better, but not by more than chance ({config.confidence:.0%}), than"
    return "the same as" if comparison.gain == 0 else "worse than"


def _named(rival: str) -> str:
    if rival == CHAMPION_NAME:
        return "the champion's"
    return f"the baseline's ({rival.replace('_', ' ')})"


def _broken_guards(evaluation: Evaluation, config: GateConfig, facts: Facts) -> list[str]:
    broken = []
    if _VARIANCE in evaluation.averages.columns:
        ratio = float(evaluation.averages.loc[MODEL, _VARIANCE])
        words = f"the generated cells vary {ratio:.2f} times as much as the real ones"
        if ratio < config.min_variance_ratio:
            broken.append(f"collapsed: {words} (at least {config.min_variance_ratio:g})")
        if ratio > config.max_variance_ratio:
            broken.append(f"inflated: {words} (at most {config.max_variance_ratio:g})")
    for name, value, most, unit in (
        ("updates vetoed for NaN", facts.nan_steps, config.max_nan_steps, ""),
        ("peak memory", facts.peak_memory_gib, config.max_peak_memory_gib, " GiB"),
        ("seconds for 1,000 cells", facts.predict_seconds, config.max_predict_seconds, ""),
    ):
        if value is None:
            broken.append(f"{name}: not recorded with this version; register it again")
        elif value > most:
            broken.append(f"{name}: {value:g}{unit} (at most {most:g}{unit})")
    return broken
