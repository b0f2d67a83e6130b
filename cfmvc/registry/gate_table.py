"""The gate's verdict for people."""

import io

from rich import box
from rich.console import Console
from rich.table import Table

from cfmvc.evaluation.metrics import METRICS, shown
from cfmvc.registry.gate import CHAMPION_NAME, Verdict


def verdict_text(verdict: Verdict, candidate: int, champion: int | None, width: int = 110) -> str:
    """Return the verdict, its reasons, and the table that they come from."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, no_color=True)
    against = "the baselines" if champion is None else f"the baselines and version {champion}"
    outcome = "PASSED" if verdict.is_passed else "REFUSED"
    lines = [f"{outcome}: version {candidate} against {against}. {_in_short(verdict)}", ""]
    lines += [f"- {reason}" for reason in verdict.reasons]
    for line in lines:
        console.print(line, markup=False, highlight=False)
    console.print(_table(verdict))
    facts = verdict.facts
    for name, value in (
        ("updates vetoed for NaN", facts.nan_steps),
        ("peak memory, GiB", facts.peak_memory_gib),
        ("seconds for 1,000 cells", facts.predict_seconds),
    ):
        shown = "not recorded" if value is None else f"{value:.3g}"
        console.print(f"{name}: {shown}", markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _in_short(verdict: Verdict) -> str:
    """Say against whom everything was won, and against whom not."""
    required: dict[str, list[bool]] = {}
    for comparison in verdict.comparisons:
        required.setdefault(comparison.rival, []).append(comparison.is_won)
    beaten = [shown(name) for name, won in required.items() if all(won)]
    ahead = [
        f"{name.replace('_', ' ')} ({won.count(False)} of {len(won)} metrics)"
        for name, won in required.items()
        if not all(won)
    ]
    words = "" if verdict.void is None else "The comparison with the champion is void. "
    words += f"Better than {', '.join(beaten)}" if beaten else "Better than nobody"
    if ahead:
        words += f"; not, or not by more than chance, than {', '.join(ahead)}"
    return f"{words}."


def _table(verdict: Verdict) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("metric", no_wrap=True)
    table.add_column("against", no_wrap=True)
    for heading in ("candidate", "other", "gain", "gain at least"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    if verdict.void is not None:
        own = {c.metric: c.candidate for c in verdict.comparisons}
        for metric, value in own.items():
            heading = f"{metric} {METRICS[metric].arrow}"
            table.add_row(heading, CHAMPION_NAME, f"{value:.3f}", "-", "-", "-", "VOID")
    ranked = sorted(verdict.comparisons, key=lambda c: c.rival != CHAMPION_NAME)
    for comparison in ranked:
        table.add_row(
            f"{comparison.metric} {METRICS[comparison.metric].arrow}",
            shown(comparison.rival),
            f"{comparison.candidate:.3f}",
            f"{comparison.other:.3f}",
            f"{comparison.gain:+.3f}",
            f"{comparison.at_least:+.3f}",
            "better" if comparison.is_won else "NOT BETTER",
        )
    return table
