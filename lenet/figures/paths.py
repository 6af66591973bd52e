"""Changes one at a time: the error along a path of variants, and what single changes make of it."""

import dataclasses
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lenet.figures.errors import Difference
from lenet.figures.style import PALETTE, headline, in_view, log_if_wide, rows_only, styled

# The colour, the mark and the meaning of a change that is for the better, the worse, or not known.
VERDICTS = {
    "better": ("blue", "<", "lowers the error"),
    "worse": ("vermillion", ">", "raises the error"),
    "open": ("muted", "o", "cannot be told from no change"),
}
WIDEST_LABEL = 36


@dataclasses.dataclass(frozen=True)
class Step:
    """One variant of a path, its errors as fractions.

    Attributes:
        label: the variant.
        mean: its mean error; None if every seed diverged.
        interval: the 95 % interval of the mean.
        change: from the variant before it; None for the first, or where no seed has both.
        diverged: how many of its seeds did.
    """

    label: str
    mean: float | None
    interval: tuple[float, float] | None = None
    change: Difference | None = None
    diverged: int = 0


def verdict(change: Difference | None) -> str:
    """Which of VERDICTS a change has."""
    if change is None or not change.established:
        return "open"
    return "better" if change.difference < 0 else "worse"


def waterfall(steps: Sequence[Step], *, title: str) -> Figure:
    """The mean error after each step of a path; beside it what the step changed, in points.

    A bar leads from the error before a step to the one after it.
    """
    with styled():
        figure = Figure(figsize=(9.2, 1.9 + 0.36 * len(steps)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 0.8))
        for row, step in enumerate(steps):
            color = PALETTE[VERDICTS[verdict(step.change)][0]] if row else PALETTE["ink"]
            if step.mean is None:
                continue
            before = steps[row - 1].mean if row else None
            if before is not None:
                left.plot([100 * before] * 2, [row - 1, row], color=PALETTE["muted"], linewidth=0.8)
                left.barh(
                    row, 100 * (step.mean - before), 0.5, 100 * before, color=color, alpha=0.4
                )
            if step.interval is not None:
                low, high = step.interval
                left.plot([100 * low, 100 * high], [row] * 2, color=color, linewidth=2)
            left.plot(
                [100 * step.mean], [row], marker="D", markersize=6, color=color, gid=f"step-{row}"
            )
        _scale([step.mean for step in steps if step.mean], left)
        _draw_changes(right, [step.change for step in steps])
        left.set_yticks(
            range(len(steps)), [_row_label(step.label, step.diverged) for step in steps]
        )
        left.set_ylim(len(steps) - 0.5, -0.5)
        left.set_xlabel("mean test error (%)")
        right.set_xlabel("change at this step (points)")
        for axes in (left, right):
            rows_only(axes)
        _explain(figure)
        headline(figure, title)
        return figure


def changes(rows: Sequence[Difference], *, title: str, xlabel: str) -> Figure:
    """What each change makes of the error of one reference, in points, a row a change."""
    with styled():
        figure = Figure(figsize=(7.4, 1.7 + 0.34 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        _draw_changes(axes, rows)
        axes.set_yticks(range(len(rows)), [_row_label(row.label) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(xlabel)
        rows_only(axes)
        _explain(figure)
        headline(figure, title)
        return figure


def _draw_changes(axes: Axes, rows: Sequence[Difference | None]) -> None:
    """Differences with their intervals, and both in numbers; what lies far out is an arrow."""
    reach = _reach(rows)
    axes.axvline(0, color=PALETTE["ink"], linewidth=1)
    for row, change in enumerate(rows):
        if change is None:
            continue
        name = verdict(change)
        color, marker = PALETTE[VERDICTS[name][0]], VERDICTS[name][1]
        difference = 100 * change.difference
        written = _signed(difference)
        if change.interval is not None:
            low, high = (100 * end for end in change.interval)
            written += f" ({_signed(low)} to {_signed(high)})"
            axes.plot([low, high], [row] * 2, color=color, linewidth=2)
        if abs(difference) > reach:
            side = 1 if difference > 0 else -1
            axes.annotate(
                "",
                (side * reach, row),
                xytext=(side * reach * 0.8, row),
                arrowprops={"arrowstyle": "->", "color": color},
            )
        else:
            axes.plot(
                [difference],
                [row],
                marker=marker,
                markersize=7,
                color=color,
                markerfacecolor=PALETTE["card"] if name == "open" else color,
                gid=f"{name}-{row}",
            )
        _note(axes, row, written)
    axes.set_xlim(-reach, reach)


def _reach(rows: Sequence[Difference | None]) -> float:
    """How far from zero the axis goes, in points: not to what is far from the others."""
    ends = [100 * max(map(abs, (row.difference, *(row.interval or ())))) for row in rows if row]
    return 1.08 * (in_view(ends)[1] if ends else 0.0) or 1.0


def _scale(means: Sequence[float], axes: Axes) -> None:
    """A log scale for errors that span much, of which intervals may lead to where there is none."""
    if log_if_wide(axes.xaxis, [100 * mean for mean in means]):
        axes.set_xlim(left=100 * min(means) / 1.4)


def _note(axes: Axes, row: int, text: str) -> None:
    axes.annotate(
        text,
        (1, row),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=PALETTE["muted"],
    )


def _row_label(label: str, diverged: int = 0) -> str:
    return textwrap.fill(f"{label} ({diverged} diverged)" if diverged else label, WIDEST_LABEL)


def _explain(figure: Figure) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=PALETTE[color],
            marker=marker,
            markersize=7,
            markerfacecolor=PALETTE["card"] if name == "open" else PALETTE[color],
            label=meaning,
        )
        for name, (color, marker, meaning) in VERDICTS.items()
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=9)


def _signed(points: float) -> str:
    return "0.00" if abs(points) < 0.005 else f"{points:+.2f}"
