"""Curves: values against epochs or seconds, and errors against a tuned number."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lenet.figures.style import (
    LINE_STYLES,
    PALETTE,
    SERIES,
    headline,
    line_style,
    log_if_wide,
    series_color,
    styled,
)

# More values than these have no room to be named; the powers of ten are.
MAX_TICKS = 8
# Longer labels have no room beside each other in a legend, in characters.
MAX_LABEL = 32


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """The errors (fractions) of one variant at each value of a number of the config.

    Attributes:
        label: the variant.
        values: the values tried, ascending.
        errors: of each value the error of every seed that did not diverge.
        diverged: of each value how many seeds did.
        chosen: the value that was chosen, if any was.
    """

    label: str
    values: tuple[float, ...]
    errors: tuple[tuple[float, ...], ...]
    diverged: tuple[int, ...]
    chosen: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """One line against `x` (epochs or seconds), with a band from `low` to `high` if given."""

    label: str
    x: Int[np.ndarray, " epochs"] | Float[np.ndarray, " epochs"]
    values: Float[np.ndarray, " epochs"]
    low: Float[np.ndarray, " epochs"] | None = None
    high: Float[np.ndarray, " epochs"] | None = None


def learning_curves(
    curves: Sequence[Curve],
    *,
    title: str,
    ylabel: str,
    percent: bool = False,
    xlabel: str = "epochs",
    log_x: bool = False,
    references: Mapping[str, float] | None = None,
    linear: bool = False,
) -> Figure:
    """Values against epochs, on a log scale where they span more than a factor of `style.WIDE`.

    Never on a log scale with `linear`, as for shares of which all matter.

    With `percent` the values are fractions and are drawn as percent. Bands of more than six lines
    would hide each other and are left out. `references`, what published values are of, become
    horizontal lines. With `log_x` what they are drawn against is on a log scale too.
    """
    references = references or {}
    with styled():
        named_at_ends = len(curves) <= 4 and all(len(curve.label) <= 12 for curve in curves)
        crowded = len(curves) > len(SERIES)
        columns = 2 if crowded or all(len(curve.label) <= MAX_LABEL for curve in curves) else 1
        legend = 0.0 if named_at_ends else 0.21 * math.ceil(len(curves) / columns)
        figure = Figure(figsize=(5.6, 3.5 + legend), layout="constrained")
        axes = figure.add_subplot()
        factor = 100.0 if percent else 1.0
        for index, curve in enumerate(curves):
            color = series_color(index)
            if curve.low is not None and curve.high is not None and not crowded:
                axes.fill_between(
                    curve.x,
                    factor * curve.low,
                    factor * curve.high,
                    color=color,
                    alpha=0.18,
                    linewidth=0,
                )
            axes.plot(
                curve.x,
                factor * curve.values,
                color=color,
                linestyle=line_style(index),
                marker="o" if len(curve.x) <= 25 and not crowded else None,
                label=curve.label,
            )
        published = factor * np.array(list(references.values()), float)
        shown = [*(factor * curve.values for curve in curves), published]
        if linear:
            axes.set_ylim(bottom=0)
        else:
            _scale_values(axes, shown)
        for index, label in enumerate(references):
            _draw_reference(axes, shown[:-1], label, float(published[index]), index)
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        else:
            whole = all(np.issubdtype(curve.x.dtype, np.integer) for curve in curves)
            axes.xaxis.set_major_locator(MaxNLocator(integer=whole, min_n_ticks=1))
        axes.set_xlabel(xlabel)
        axes.set_ylabel(f"{ylabel} (%)" if percent else ylabel)
        headline(figure, title)
        if named_at_ends:
            _label_line_ends(axes, curves, factor)
        else:
            figure.legend(loc="outside lower left", ncols=columns, frameon=False)
        return figure


def _draw_reference(
    axes: Axes, curves: Sequence[Float[np.ndarray, " _"]], label: str, value: float, index: int
) -> None:
    """A line across, with its label on it at the end from which the curves are further."""
    style = LINE_STYLES[1 + index % (len(LINE_STYLES) - 1)]
    axes.axhline(value, color=PALETTE["muted"], linewidth=1.3, linestyle=style, zorder=1)
    on_scale = axes.yaxis.get_transform().transform

    def clearance(end: int) -> float:
        ends = [curve[np.isfinite(curve)][end] for curve in curves if np.isfinite(curve).any()]
        return float(np.abs(on_scale(np.array(ends)) - on_scale(np.array([value]))).min(initial=9))

    right = clearance(-1) > clearance(0)
    axes.annotate(
        label,
        (1 if right else 0, value),
        xycoords=("axes fraction", "data"),
        xytext=(-4 if right else 4, -3),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top",
        fontsize=9,
        color=PALETTE["muted"],
    )


def sensitivity(variants: Sequence[Sensitivity], *, title: str, xlabel: str, ylabel: str) -> Figure:
    """Errors against a number of the config, a panel a variant, every seed a dot.

    The number is on a log scale if all of its values are positive, and so are the errors where they
    span much. Seeds that diverged are counted at the top of their value.
    """
    columns = min(2 if len(variants) <= len(SERIES) else 4, len(variants))
    rows = math.ceil(len(variants) / columns)
    with styled():
        figure = Figure(
            figsize=(0.4 + (2.8 if columns <= 2 else 2.2) * columns, 0.9 + 1.9 * rows),
            layout="constrained",
        )
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        panels = list(grid.flat)
        for index, (axes, variant) in enumerate(zip(panels, variants, strict=False)):
            _draw_sensitivity(axes, variant, index)
        for axes in panels[len(variants) :]:
            axes.set_axis_off()
            # Its neighbour above is then the lowest of its column, and has the scale.
            panels[panels.index(axes) - columns].xaxis.set_tick_params(labelbottom=True)
        values = sorted({value for variant in variants for value in variant.values})
        if values and values[0] > 0:
            panels[0].set_xscale("log")
            panels[0].set_xlim(values[0] / 1.6, values[-1] * 1.6)
        crowded = panels[0].get_xscale() == "log" and len(values) > MAX_TICKS
        locator = LogLocator(numticks=MAX_TICKS) if crowded else FixedLocator(values)
        panels[0].xaxis.set_major_locator(locator)
        panels[0].xaxis.set_minor_locator(NullLocator())
        panels[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        for axes in panels:
            axes.tick_params(
                axis="x",
                labelsize=8.5,
                labelrotation=45 if not crowded and (len(values) > 5 or columns > 2) else 0,
            )
        errors = [100 * error for v in variants for seeds in v.errors for error in seeds]
        _scale_values(panels[0], [np.array(errors)])
        figure.supxlabel(xlabel, fontsize=10.5)
        figure.supylabel(f"{ylabel} (%)", fontsize=10.5)
        headline(figure, title)
        return figure


def _draw_sensitivity(axes: Axes, variant: Sensitivity, index: int) -> None:
    color = series_color(index)
    tried = [(v, seeds) for v, seeds in zip(variant.values, variant.errors, strict=True) if seeds]
    axes.plot(
        [value for value, _ in tried],
        [100 * float(np.mean(seeds)) for _, seeds in tried],
        color=color,
        linewidth=1.5,
    )
    for value, seeds in tried:
        axes.plot(
            [value] * len(seeds),
            [100 * error for error in seeds],
            linestyle="none",
            marker="o",
            markersize=5,
            markeredgewidth=0,
            color=color,
            alpha=0.6,
            gid=f"seeds-{index}-{value:g}",
        )
        if value == variant.chosen:
            axes.plot(
                [value],
                [100 * float(np.mean(seeds))],
                marker="o",
                markersize=13,
                color=PALETTE["ink"],
                markerfacecolor="none",
                markeredgecolor=PALETTE["ink"],
                markeredgewidth=1.5,
                gid=f"chosen-{index}",
            )
    for value, lost in zip(variant.values, variant.diverged, strict=True):
        if lost:
            axes.annotate(
                f"{lost} diverged",
                (value, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, -3),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=8.5,
                color=PALETTE["muted"],
            )
    axes.set_title(variant.label, color=color, fontsize=9, pad=4)


def _scale_values(axes: Axes, values: Sequence[Float[np.ndarray, " _"]]) -> None:
    numbers = np.concatenate([np.asarray(value, float) for value in values] or [np.zeros(0)])
    numbers = numbers[np.isfinite(numbers)]
    if not log_if_wide(axes.yaxis, numbers) and len(numbers):
        axes.set_ylim(bottom=min(0.0, float(numbers.min())))


def _label_line_ends(axes: Axes, curves: Sequence[Curve], factor: float) -> None:
    """Writes each label where its line ends, pushed apart where they would overlap."""
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = []
    for index, curve in enumerate(curves):
        finite = np.flatnonzero(np.isfinite(curve.values))
        if len(finite):
            value = factor * float(curve.values[finite[-1]])
            height = to_axes.transform((float(curve.x[finite[-1]]), value))[1]
            ends.append((float(height), index))
    previous = -math.inf
    for height, index in sorted(ends):
        previous = max(height, previous + 0.075)
        axes.annotate(
            curves[index].label,
            (1.0, previous),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=series_color(index),
        )
