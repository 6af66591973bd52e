"""What a sweep found besides means: the grid of its factors, trends, tuning and time."""

import itertools
from collections.abc import Sequence

import numpy as np

from lenet import figures
from lenet.statistics import mean_interval, time_to_error
from lenet.templates.document import Block, Details, Notice, Plot, Row, Section, Table, Text, plot
from lenet.templates.run import (
    Fields,
    Run,
    diverged,
    file_name,
    pair,
    percent,
    phrase,
)

MAX_GRIDS = 6
MAX_ROWS = 8
# Training times closer than this ratio may be chance.
UNSTEADY = 1.2
MAX_TARGETS = 4
# Lines that colour and style can tell apart; dots that can all be named.
MAX_LINES = 24
MAX_NAMED = 8
TARGETS = tuple(digits * scale for scale in (0.1, 0.01, 0.001) for digits in (5, 3, 2, 1.5, 1.2, 1))


def grid(run: Run) -> Section | None:
    """The mean test error for each two values of two factors, for every pair of factors.

    Only of pairs whose cells all have the same values of the other factors: the cells of others
    would differ in more than their two factors.
    """
    factors = run.factors
    drawn = [
        found
        for pair in list(itertools.combinations(factors, 2))[:MAX_GRIDS]
        if (found := _grid(run, *pair)) is not None
    ]
    if not drawn:
        return None
    names = [_word(factor) for factor in factors]
    text = (
        "In each cell the mean test error in percent and under it its 95 % interval; the stronger "
        "the colour, the greater the error within this grid."
    )
    if len(factors) > 2:
        text += " A cell is the mean over all the other factors, seed by seed."
    blocks = (Row(tuple(drawn)),) if len(drawn) > 1 else (drawn[0],)
    return Section(" x ".join(names).capitalize(), (*blocks, Text(text)))


def _grid(run: Run, first: str, second: str) -> Plot | None:
    rows, columns = run.factors[first], run.factors[second]
    cells = [[_cell(run, {first: row, second: column}) for column in columns] for row in rows]
    if any(cell is None for line in cells for cell in line) or not _balanced(run, first, second):
        return None
    means = {
        f"{phrase(first, row)} with {phrase(second, column)}": cell.mean
        for row, line in zip(rows, cells, strict=True)
        for column, cell in zip(columns, line, strict=True)
        if cell is not None and cell.mean is not None
    }
    title = "Every trial diverged"
    if means:
        lowest = min(means, key=lambda place: means[place])
        title = f"Lowest: {lowest}, {percent(means[lowest])}"
    figure = figures.factor_grid(
        [[cell for cell in line if cell is not None] for line in cells],
        [_value(row) for row in rows],
        [_value(column) for column in columns],
        title=title,
        ylabel=_word(first),
        xlabel=_word(second),
    )
    name = f"grid_{file_name(first)}_{file_name(second)}"
    caption = f"Mean test error (%) by {_word(first)} and {_word(second)}."
    return plot(name, figure, f"{caption} {title}.", caption)


def _balanced(run: Run, first: str, second: str) -> bool:
    """Whether every two values of two factors were tried with the same values of the others."""
    others: dict[tuple[str, str], set[str]] = {}
    for trial in run.summary["trials"]:
        values = {field: repr(trial["overrides"].get(field)) for field in run.factors}
        rest = {field: value for field, value in values.items() if field not in (first, second)}
        others.setdefault((values[first], values[second]), set()).add(repr(rest))
    return len(set(map(frozenset, others.values()))) == 1


def _cell(run: Run, wanted: Fields) -> figures.Cell | None:
    """Of the trials with these values, the mean over seeds; None if there is no such trial."""
    trials = [
        trial
        for trial in run.summary["trials"]
        if all(trial["overrides"].get(field) == value for field, value in wanted.items())
    ]
    if not trials:
        return None
    by_seed: dict[int, list[float | None]] = {}
    for trial in trials:
        error = None if diverged(trial) else trial["test_error"]
        by_seed.setdefault(trial["seed"], []).append(error)
    whole = max(map(len, by_seed.values()))
    means = [
        float(np.mean([error for error in errors if error is not None]))
        for errors in by_seed.values()
        if len(errors) == whole and None not in errors
    ]
    return figures.Cell(*mean_interval(means)) if means else figures.Cell(None)


def trends(run: Run) -> Section | None:
    """The test error against each swept number that has three values or more."""
    factors = run.factors
    drawn = [
        _trend(run, field)
        for field, values in factors.items()
        if len(values) >= 3 and all(map(_is_number, values))
    ]
    if not drawn:
        return None
    names = " and ".join(plot.caption for plot in drawn)
    text = "Dots: the test error of each seed. Line: their mean."
    return Section(names.removesuffix("."), (*drawn, Text(text)))


def _trend(run: Run, field: str) -> Plot:
    groups: dict[str, list[Fields]] = {}
    for trial in run.summary["trials"]:
        others = [
            phrase(other, trial["overrides"].get(other)) for other in run.factors if other != field
        ]
        groups.setdefault(", ".join(others) or run.dataset_title, []).append(trial)
    panels = []
    for label, trials in groups.items():
        values = sorted({trial["overrides"][field] for trial in trials})
        at = [[trial for trial in trials if trial["overrides"][field] == v] for v in values]
        panels.append(
            figures.Sensitivity(
                label,
                tuple(map(float, values)),
                tuple(tuple(t["test_error"] for t in each if not diverged(t)) for each in at),
                tuple(sum(map(diverged, each)) for each in at),
            )
        )
    means = {
        (panel.label, value): float(np.mean(errors))
        for panel in panels
        for value, errors in zip(panel.values, panel.errors, strict=True)
        if errors
    }
    title = "Every trial diverged"
    if means:
        label, value = min(means, key=lambda place: means[place])
        where = f"{label}, " if len(panels) > 1 else ""
        title = f"Lowest: {where}{phrase(field, value)}, {percent(means[label, value])}"
    caption = f"Test error against {_word(field)}."
    figure = figures.sensitivity(panels, title=title, xlabel=_word(field), ylabel="test error")
    wide = len(panels) > len(figures.SERIES)
    return plot(f"trend_{file_name(field)}", figure, f"{caption} {title}.", caption, wide=wide)


def tuning(run: Run) -> Section | None:
    """How the tuned fields were chosen: the validation error of every value and seed."""
    entries = run.summary.get("tuning") or []
    if not entries:
        return None
    fields = list(dict.fromkeys(field for entry in entries for field in entry["overrides"]))
    names = " and ".join(_word(field) for field in fields)
    blocks: list[Block] = [
        Text(
            f"The {names} of each variant is the one with the lowest mean validation error. The "
            "test images had no part in it: the chosen value was then trained again, with other "
            "seeds and the validation images among the training images, and only that is reported "
            f"above.{_without_choice(run, entries)}"
        )
    ]
    if edges := _edges(run, entries, fields):
        blocks.append(Notice(edges))
    if len(fields) == 1 and all(_is_number(entry["overrides"][fields[0]]) for entry in entries):
        blocks.append(_sensitivity(run, entries, fields[0]))
    header = (
        "variant",
        *map(_word, fields),
        "mean validation error",
        "seeds",
        "diverged",
        "chosen",
    )
    rows = tuple(
        (
            _label(run, entry["variant"]),
            *(_value(entry["overrides"][field]) for field in fields),
            percent(entry["validation_error_mean"]),
            str(len(entry["seeds"])),
            str(entry["diverged"]),
            "chosen" if entry["chosen"] else "",
        )
        for entry in entries
    )
    table = Table(header, rows)
    folded = Details("Every setting tried, in numbers", (table,)) if len(rows) > MAX_ROWS else table
    return Section(f"Choosing the {names}", (*blocks, folded))


def _sensitivity(run: Run, entries: Sequence[Fields], field: str) -> Plot:
    by_variant: dict[str, list[Fields]] = {}
    for entry in sorted(entries, key=lambda entry: entry["overrides"][field]):
        by_variant.setdefault(entry["variant"], []).append(entry)
    ordered = [name for name in run.labels if name in by_variant]
    ordered += [name for name in by_variant if name not in ordered]
    panels = [
        figures.Sensitivity(
            _label(run, name),
            tuple(float(entry["overrides"][field]) for entry in by_variant[name]),
            tuple(
                tuple(error for error in entry["validation_errors"] if error is not None)
                for entry in by_variant[name]
            ),
            tuple(entry["diverged"] for entry in by_variant[name]),
            next((float(e["overrides"][field]) for e in by_variant[name] if e["chosen"]), None),
        )
        for name in ordered
    ]
    chosen = sorted({panel.chosen for panel in panels if panel.chosen is not None})
    if not chosen:
        title = f"No {_word(field)} could be chosen"
    elif len(chosen) == 1 and len(panels) > 1:
        title = f"Every variant does best with {phrase(field, chosen[0])}"
    elif len(chosen) == 1:
        title = f"The lowest validation error comes with {phrase(field, chosen[0])}"
    elif len({panel.values for panel in panels}) > 1:
        title = (
            f"Each variant has a {_word(field)} of its own, from {chosen[0]:g} to {chosen[-1]:g}"
        )
    else:
        title = f"The best {_word(field)} lies between {chosen[0]:g} and {chosen[-1]:g}"
    return plot(
        "rate_sensitivity",
        figures.sensitivity(panels, title=title, xlabel=_word(field), ylabel="validation error"),
        f"Validation error against {_word(field)}, a panel a variant. {title}.",
        "Dots: the validation error of each seed. Line: their mean. Ringed: the value chosen.",
        wide=len(panels) > len(figures.SERIES),
    )


def _edges(run: Run, entries: Sequence[Fields], fields: Sequence[str]) -> str:
    """A warning if a chosen number is the least or the greatest of those tried."""
    found = []
    for field in fields:
        for entry in entries:
            tried = [
                other["overrides"][field]
                for other in entries
                if other["variant"] == entry["variant"]
            ]
            value = entry["overrides"][field]
            ends = (min(tried), max(tried)) if all(map(_is_number, tried)) else ()
            if entry["chosen"] and ends and ends[0] < ends[1] and value in ends:
                end = "smallest" if value == ends[0] else "greatest"
                found.append(f"{_label(run, entry['variant'])} ({phrase(field, value)}, the {end})")
    if not found:
        return ""
    told = "; ".join(found)
    if len(found) > MAX_ROWS:
        count = len({entry["variant"] for entry in entries})
        told = f"{len(found)} choices of {count} variants, as the figures show"
    return f"**At the edge of what was tried**: {told}. A better value may lie beyond."


def _without_choice(run: Run, entries: Sequence[Fields]) -> str:
    """A sentence on the variants that were given their values."""
    choosing = {entry["variant"] for entry in entries}
    given = [label for name, label in run.labels.items() if name not in choosing]
    if not given:
        return ""
    return f" With one value there was nothing to choose for: {'; '.join(given)}."


def time(run: Run) -> Section | None:
    """What each variant's error costs in training time, and when it reached given errors."""
    costs = _costs(run)
    curves = {
        variant["name"]: found
        for variant in run.summary["variants"]
        if (found := _finished_curves(run, variant["name"]))
    }
    if not curves and not costs:
        return None
    targets = _targets([errors for found in curves.values() for _, _, errors in found])
    blocks: list[Block] = list(costs)
    drawn = [_seconds_curve(run, name, found) for name, found in curves.items()]
    if 1 < len(drawn) <= MAX_LINES:
        title = _time_title(drawn)
        blocks.append(
            plot(
                "error_against_time",
                figures.learning_curves(
                    drawn,
                    title=title,
                    ylabel="test error",
                    percent=True,
                    xlabel="training seconds of the population",
                ),
                f"Test error against training time, a line a variant. {title}.",
                "Mean test error over seeds against the time spent in training steps, without "
                "compiling and evaluating. Trials that differ only in numbers train together, as a "
                "population; the seconds are those of the whole population, not of one trial.",
            )
        )
    if targets:
        blocks += [
            Table(
                ("variant", *(f"error {percent(target, 1)}" for target in targets)),
                tuple(
                    (_label(run, name), *_reached(found, targets)) for name, found in curves.items()
                ),
            ),
            Text(
                "Epochs until the test error was first at or below each value, and in brackets the "
                "training seconds of the population; means over the seeds that got there, with "
                "their number where it was not all that finished. The test error only tells the "
                "time here; nothing was stopped or picked by it."
            ),
        ]
    return Section("Time to reach an error", tuple(blocks)) if blocks else None


def _costs(run: Run) -> tuple[Block, ...]:
    """Each variant's error against the training time of one of its models."""
    finished = [v for v in run.summary["variants"] if v["test_error_mean"] is not None]
    if len(finished) < 2 or any(v.get("train_seconds") is None for v in finished):
        return ()
    ordered = sorted(finished, key=lambda v: (v["train_seconds"], v["test_error_mean"]))
    least, best = float("inf"), set()
    for variant in ordered:
        if variant["test_error_mean"] < least:
            least = variant["test_error_mean"]
            best.add(variant["name"])
    few = len(finished) <= MAX_NAMED
    path = run.config.get("path") or ()
    costs = [
        figures.Cost(
            _label(run, variant["name"]),
            variant["train_seconds"],
            variant["test_error_mean"],
            pair(variant["test_error_ci95"]),
            variant["name"] in best,
            few or variant["name"] in best or variant["name"] in path,
        )
        for variant in ordered
    ]
    title = _cost_title(costs)
    rows = tuple(
        (cost.label, percent(cost.mean), f"{cost.seconds:.1f}", "yes" if cost.best else "")
        for cost in costs
    )
    header = ("variant", "mean test error", "seconds a model", "no other is better and quicker")
    return (
        plot(
            "error_against_cost",
            figures.errors_against_seconds(costs, title=title),
            f"Test error against the training time of a model, a dot a variant. {title}.",
            "Mean test error over seeds and its 95 % interval, against the time spent in training "
            "steps: that of the whole population divided by its models, without compiling and "
            "evaluating. Filled: no other variant has both a lower mean and a shorter time. What "
            "else the machine had to do is in these times, and close means need not differ.",
        ),
        Details("Error and time of every variant, in numbers", (Table(header, rows),)),
    )


def _cost_title(costs: Sequence[figures.Cost]) -> str:
    lowest, quickest = min(costs, key=lambda cost: cost.mean), costs[0]
    if lowest.seconds < UNSTEADY * quickest.seconds:
        return f"{lowest.label} has the lowest mean error, and nothing is quicker by much"
    times = lowest.seconds / quickest.seconds
    return (
        f"{lowest.label} has the lowest mean error, {percent(lowest.mean)}; {quickest.label} is "
        f"trained {times:.1f} times as fast and has {percent(quickest.mean)}"
    )


def _time_title(curves: Sequence[figures.Curve]) -> str:
    """Who ends lowest and who is done first, if by more than a machine's own unsteadiness."""
    lowest = min(curves, key=lambda curve: float(curve.values[-1]))
    quickest, second, *_ = sorted(curves, key=lambda curve: float(curve.x[-1]))
    if second.x[-1] < UNSTEADY * quickest.x[-1]:
        return f"{lowest.label} ends lowest"
    if quickest is lowest:
        return f"{lowest.label} is done first and ends lowest"
    return f"{lowest.label} ends lowest; {quickest.label} is done first"


Curves = list[tuple[list[int], list[float], list[float]]]


def _finished_curves(run: Run, variant: str) -> Curves:
    """Of each trial that finished: epochs, training seconds, test errors."""
    found = []
    for trial in run.trials_of(variant):
        lines = run.metrics.get(trial["id"], ())
        if diverged(trial) or not lines or any(line.get("train_seconds") is None for line in lines):
            continue
        found.append(
            (
                [line["epoch"] for line in lines],
                run.values(trial["id"], "train_seconds").tolist(),
                run.values(trial["id"], "test_error").tolist(),
            )
        )
    return found


def _seconds_curve(run: Run, variant: str, found: Curves) -> figures.Curve:
    length = min(len(epochs) for epochs, _, _ in found)
    errors = np.stack([errors[:length] for _, _, errors in found])
    return figures.Curve(
        _label(run, variant),
        np.mean([seconds[:length] for _, seconds, _ in found], axis=0),
        errors.mean(0),
        errors.min(0) if len(found) > 1 else None,
        errors.max(0) if len(found) > 1 else None,
    )


def _targets(curves: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The lowest round errors that some trial reaches, but not all of them at once."""
    least = min((min(curve) for curve in curves), default=1.0)
    first = max((curve[0] for curve in curves), default=0.0)
    return tuple(target for target in TARGETS if least <= target < first)[-MAX_TARGETS:]


def _reached(found: Curves, targets: Sequence[float]) -> tuple[str, ...]:
    cells = []
    times = [time_to_error(epochs, seconds, errors, targets) for epochs, seconds, errors in found]
    for reached in zip(*times, strict=True):
        there = [
            (one.epoch, one.seconds)
            for one in reached
            if one.epoch is not None and one.seconds is not None
        ]
        if not there:
            cells.append("never")
            continue
        epochs, seconds = np.mean(there, axis=0)
        cell = f"{epochs:.1f} ({seconds:.1f} s)"
        cells.append(cell if len(there) == len(found) else f"{cell}, {len(there)} of {len(found)}")
    return tuple(cells)


def _label(run: Run, variant: str) -> str:
    return run.labels.get(variant, variant)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _word(field: str) -> str:
    return field.replace("_", " ")
