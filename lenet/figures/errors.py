"""Final errors: of every seed, their differences, and the grid of two factors."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from lenet.figures.style import (
    LINE_STYLES,
    PALETTE,
    headline,
    in_view,
    log_if_wide,
    rows_only,
    series_color,
    styled,
    zoom,
)

WIDEST_LABEL = 48


@dataclasses.dataclass(frozen=True)
class ErrorsOfVariant:
    """The final errors (fractions) of one variant's seeds, their mean and its 95 % interval."""

    label: str
    errors: tuple[float, ...]
    mean: float | None = None
    interval: tuple[float, float] | None = None
    diverged: int = 0


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of errors (fractions), its 95 % interval, and whether it is established."""

    label: str
    difference: float
    interval: tuple[float, float] | None = None
    established: bool = False


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one variant reaches, and in what time.

    Attributes:
        label: the variant.
        seconds: the training time of one of its models.
        mean: its mean error (fraction).
        interval: the 95 % interval of the mean.
        best: whether no other variant has both a lower mean and a shorter time.
        named: whether the figure tells its name.
    """

    label: str
    seconds: float
    mean: float
    interval: tuple[float, float] | None = None
    best: bool = False
    named: bool = True


@dataclasses.dataclass(frozen=True)
class Cell:
    """The mean error (fraction) of a cell of a grid, None if all diverged, and its interval."""

    mean: float | None
    interval: tuple[float, float] | None = None


def errors_by_variant(
    variants: Sequence[ErrorsOfVariant],
    *,
    title: str,
    references: Mapping[str, float] | None = None,
) -> Figure:
    """Every seed's final test error as a dot, with the mean and its interval, a row a variant.

    Args:
        variants: the rows.
        title: what they say.
        references: what published errors (fractions) are of; they become vertical lines.
    """
    references = references or {}
    with styled():
        height = 1.35 + 0.5 * len(variants) + 0.22 * len(references)
        figure = Figure(figsize=(5.9, height), layout="constrained")
        axes = figure.add_subplot()
        for index, (label, error) in enumerate(references.items()):
            axes.axvline(
                100 * error,
                color=PALETTE["muted"],
                linewidth=1.3,
                linestyle=LINE_STYLES[1 + index % (len(LINE_STYLES) - 1)],
                label=f"{label}: {100 * error:.2f} %",
                zorder=1,
            )
        for row, variant in enumerate(variants):
            color = series_color(row)
            axes.plot(
                [100 * error for error in variant.errors],
                [row - 0.14] * len(variant.errors),
                linestyle="none",
                marker="o",
                markersize=6,
                color=color,
                alpha=0.6,
                markeredgewidth=0,
                gid=f"seeds-{row}",
            )
            if variant.interval is not None:
                low, high = variant.interval
                axes.plot([100 * low, 100 * high], [row + 0.16] * 2, color=color, linewidth=2.5)
            if variant.mean is not None:
                axes.plot([100 * variant.mean], [row + 0.16], marker="D", markersize=6, color=color)
            if variant.diverged:
                axes.annotate(
                    f"{variant.diverged} diverged",
                    (1, row),
                    xycoords=("axes fraction", "data"),
                    xytext=(6, 0),
                    textcoords="offset points",
                    va="center",
                )
        axes.set_yticks(range(len(variants)), [variant.label for variant in variants])
        axes.set_ylim(len(variants) - 0.5, -0.5)
        rows_only(axes)
        zoom(axes, [[100 * error for error in variant.errors] for variant in variants])
        axes.set_xlabel("test error (%)")
        headline(figure, title)
        if references:
            figure.legend(loc="outside lower left", frameon=False, fontsize=9, handlelength=3)
        return figure


def differences(rows: Sequence[Difference], *, title: str, xlabel: str) -> Figure:
    """Differences and their intervals in points, a row each, against the line of no difference.

    What is established is filled, what is not is hollow.
    """
    with styled():
        figure = Figure(figsize=(5.9, 1.3 + 0.36 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=PALETTE["ink"], linewidth=1)
        for row, entry in enumerate(rows):
            color = PALETTE["blue" if entry.established else "muted"]
            if entry.interval is not None:
                low, high = entry.interval
                axes.plot([100 * low, 100 * high], [row] * 2, color=color, linewidth=2)
            axes.plot(
                [100 * entry.difference],
                [row],
                marker="o",
                markersize=7,
                color=color,
                markerfacecolor=color if entry.established else PALETTE["card"],
                gid=f"{'established' if entry.established else 'open'}-{row}",
            )
        axes.set_yticks(range(len(rows)), [entry.label for entry in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        rows_only(axes)
        zoom(
            axes,
            [[100 * value for value in (row.difference, *(row.interval or ()))] for row in rows],
        )
        axes.set_xlabel(textwrap.fill(xlabel, WIDEST_LABEL))
        headline(figure, title)
        return figure


def errors_against_seconds(costs: Sequence[Cost], *, title: str) -> Figure:
    """Mean test error against the training time of a model, a dot a variant.

    The best are filled. Those that are named have a number, which the legend explains. Axes that
    span much are on a log scale.
    """
    named = [cost for cost in costs if cost.named]
    with styled():
        figure = Figure(figsize=(5.9, 3.9 + 0.19 * len(named)), layout="constrained")
        axes = figure.add_subplot()
        for cost in costs:
            color = PALETTE["blue" if cost.best else "muted"]
            if cost.interval is not None:
                low, high = cost.interval
                axes.plot([cost.seconds] * 2, [100 * low, 100 * high], color=color, linewidth=1.5)
            axes.plot(
                [cost.seconds],
                [100 * cost.mean],
                marker="o",
                markersize=6,
                color=color,
                markerfacecolor=color if cost.best else PALETTE["card"],
                gid=f"cost-{'best' if cost.best else 'other'}",
            )
        for number, cost in enumerate(named, 1):
            axes.annotate(
                str(number),
                (cost.seconds, 100 * cost.mean),
                xytext=(4, 4 if number % 2 else -12),
                textcoords="offset points",
                color=PALETTE["blue" if cost.best else "muted"],
                fontweight="bold",
            )
        log_if_wide(axes.xaxis, [cost.seconds for cost in costs])
        log_if_wide(axes.yaxis, [100 * cost.mean for cost in costs])
        axes.grid(axis="x", visible=True)
        axes.set_xlabel("training seconds of a model")
        axes.set_ylabel("mean test error (%)")
        headline(figure, title)
        handles = [
            Line2D(
                [],
                [],
                linestyle="none",
                label=f"{number}: {cost.label}, {100 * cost.mean:.2f} %, {cost.seconds:.3g} s",
            )
            for number, cost in enumerate(named, 1)
        ]
        figure.legend(
            handles=handles, loc="outside lower left", frameon=False, fontsize=9, handlelength=0
        )
        return figure


def factor_grid(
    cells: Sequence[Sequence[Cell]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    ylabel: str,
    xlabel: str,
) -> Figure:
    """A heat map of two factors: the mean error and its interval in each cell, in percent.

    The stronger the colour, the greater the error; the weakest is the least, not zero.
    """
    means = [cell.mean for line in cells for cell in line if cell.mean is not None]
    low, high = in_view(means) if means else (0.0, 0.0)
    span = high - low
    with styled():
        size = (min(9.0, 1.5 + 1.25 * len(columns)), 1.4 + 0.72 * len(rows))
        figure = Figure(figsize=(max(size[0], 4.2), size[1]), layout="constrained")
        axes = figure.add_subplot()
        for row, line in enumerate(cells):
            for column, cell in enumerate(line):
                strength = 0.0 if cell.mean is None or not span else (cell.mean - low) / span
                strength = min(max(strength, 0.0), 1.5)
                axes.add_patch(
                    Rectangle(
                        (column - 0.48, row - 0.46),
                        0.96,
                        0.92,
                        facecolor=PALETTE["vermillion"] if cell.mean is not None else "none",
                        alpha=0.08 + 0.5 * strength if cell.mean is not None else 1,
                        edgecolor="none" if cell.mean is not None else PALETTE["grid"],
                    )
                )
                interval = cell.interval
                shown = "diverged" if cell.mean is None else f"{100 * cell.mean:.2f}"
                axes.text(
                    column,
                    row - (0.13 if interval else 0),
                    shown,
                    ha="center",
                    va="center",
                    fontsize=12 if cell.mean is not None else 9.5,
                    fontweight="bold" if cell.mean is not None else "normal",
                )
                if interval:
                    axes.text(
                        column,
                        row + 0.22,
                        f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}",
                        ha="center",
                        va="center",
                        fontsize=8.5,
                    )
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        headline(figure, title)
        return figure
