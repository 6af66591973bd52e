"""What the claims' examinations share: errors out of a run, their comparisons, their figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from lenet import figures, statistics
from lenet.templates.document import Plot, plot
from lenet.templates.run import Fields, Run, diverged, points

Interval = tuple[float, float] | None


def errors_of(run: Run, variant: str) -> dict[int, float]:
    """The test error of each seed of a variant that did not diverge."""
    done = [trial for trial in run.trials_of(variant) if not diverged(trial)]
    return {trial["seed"]: trial["test_error"] for trial in done}


def mean_of(errors: Mapping[int, float]) -> float | None:
    """The mean over seeds; None where there are none."""
    return sum(errors.values()) / len(errors) if errors else None


def compare(run: Run, a: str, b: str) -> statistics.Comparison:
    """The error of one variant minus that of another, paired over the seeds that both have."""
    return paired(errors_of(run, a), errors_of(run, b))


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> statistics.Comparison:
    """One number a seed minus another, over the seeds that both have."""
    seeds = sorted(a.keys() & b.keys())
    return statistics.paired_comparison([a[seed] for seed in seeds], [b[seed] for seed in seeds])


def interval_of(compared: statistics.Comparison) -> Interval:
    """Its 95 % interval; of one value, where every pair differs by the same, that value."""
    if compared.ci95 is None and compared.difference is not None and compared.n > 1:
        return (compared.difference, compared.difference)
    return compared.ci95


def in_points(compared: statistics.Comparison, sign: int = 1) -> str:
    """A difference in percentage points with its interval: `0.22 (0.18 to 0.27)`."""
    if compared.difference is None:
        return "unknown"
    interval = interval_of(compared)
    told = points(sign * compared.difference)
    if interval is None:
        return told
    low, high = sorted(sign * bound for bound in interval)
    return f"{told} ({points(low)} to {points(high)}, n = {compared.n})"


def in_numbers(compared: statistics.Comparison, digits: int = 2) -> str:
    """A difference with its interval, as it is."""
    if compared.difference is None:
        return "unknown"
    told = f"{compared.difference:.{digits}f}"
    interval = interval_of(compared)
    if interval is None:
        return told
    low, high = interval
    return f"{told} ({low:.{digits}f} to {high:.{digits}f}, n = {compared.n})"


def variant_of(run: Run, name: str) -> Fields:
    """The summary's entry of a variant."""
    return next(entry for entry in run.summary["variants"] if entry["name"] == name)


def errors_plot(
    name: str,
    run: Run,
    *,
    title: str,
    caption: str,
    variants: Sequence[str] = (),
    references: Mapping[str, float] | None = None,
) -> Plot:
    """The test error of every seed of some variants (all of them by default), with intervals."""
    names = variants or [entry["name"] for entry in run.summary["variants"]]
    rows = [
        figures.ErrorsOfVariant(
            run.labels[each],
            tuple(errors_of(run, each).values()),
            variant_of(run, each)["test_error_mean"],
            _pair(variant_of(run, each)["test_error_ci95"]),
            variant_of(run, each)["diverged"],
        )
        for each in names
    ]
    drawn = figures.errors_by_variant(rows, title=title, references=references)
    return plot(name, drawn, title, caption)


def _pair(interval: Any) -> Interval:
    return None if interval is None else (float(interval[0]), float(interval[1]))
