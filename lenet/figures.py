"""The report's figures: pure functions from numbers to a matplotlib Figure, and from that to SVG.

No pyplot and no global state, and the same numbers give the same bytes. Every colour is one of
`PALETTE`, so that a page that inlines the SVG can exchange them by name in a dark scheme.
"""

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

# The series are Okabe and Ito's, which colour-blind readers can tell apart.
PALETTE: Mapping[str, str] = {
    "ink": "#1f2429",
    "muted": "#5b646d",
    "grid": "#dfe3e8",
    "card": "#ffffff",
    "blue": "#0072b2",
    "vermillion": "#d55e00",
    "green": "#009e73",
    "pink": "#cc79a7",
    "orange": "#e69f00",
    "sky": "#56b4e9",
}
SERIES = ("blue", "vermillion", "green", "pink", "orange", "sky")
LINE_STYLES = ("solid", "dashed", "dotted", "dashdot")
MAX_ANNOTATED_CLASSES = 26
POINTS_PER_INCH = 72

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "lenet",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 10.5,
    "text.color": PALETTE["ink"],
    "axes.edgecolor": PALETTE["muted"],
    "axes.labelcolor": PALETTE["ink"],
    "axes.facecolor": "none",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlepad": 10.0,
    "axes.grid.axis": "y",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALETTE["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": PALETTE["muted"],
    "ytick.color": PALETTE["muted"],
    "xtick.labelcolor": PALETTE["ink"],
    "ytick.labelcolor": PALETTE["ink"],
    "lines.linewidth": 2.0,
    "lines.markersize": 4.0,
    "figure.facecolor": PALETTE["card"],
}


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """One line of a learning-curve figure, with a band from `low` to `high` if they are given."""

    label: str
    epochs: Int[np.ndarray, " epochs"]
    values: Float[np.ndarray, " epochs"]
    low: Float[np.ndarray, " epochs"] | None = None
    high: Float[np.ndarray, " epochs"] | None = None


@dataclasses.dataclass(frozen=True)
class ErrorsOfVariant:
    """The final errors (fractions) of one variant's seeds, their mean and its 95 % interval."""

    label: str
    errors: tuple[float, ...]
    mean: float | None = None
    interval: tuple[float, float] | None = None
    diverged: int = 0


def series_color(index: int) -> str:
    """The colour of the series numbered `index`; they repeat after six."""
    return PALETTE[SERIES[index % len(SERIES)]]


def learning_curves(
    curves: Sequence[Curve], *, title: str, ylabel: str, percent: bool = False
) -> Figure:
    """Values against epochs, on a log scale where they span more than a factor of five.

    With `percent` the values are fractions and are drawn as percent.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.6, 3.7), layout="constrained")
        axes = figure.add_subplot()
        factor = 100.0 if percent else 1.0
        for index, curve in enumerate(curves):
            color = series_color(index)
            if curve.low is not None and curve.high is not None:
                axes.fill_between(
                    curve.epochs,
                    factor * curve.low,
                    factor * curve.high,
                    color=color,
                    alpha=0.18,
                    linewidth=0,
                )
            axes.plot(
                curve.epochs,
                factor * curve.values,
                color=color,
                linestyle=LINE_STYLES[index // len(SERIES) % len(LINE_STYLES)],
                marker="o" if len(curve.epochs) <= 25 else None,
                label=curve.label,
            )
        _scale_values(axes, [factor * curve.values for curve in curves])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epochs")
        axes.set_ylabel(f"{ylabel} (%)" if percent else ylabel)
        axes.set_title(title)
        if len(curves) <= 4 and all(len(curve.label) <= 12 for curve in curves):
            _label_line_ends(axes, curves, factor)
        else:
            figure.legend(loc="outside lower left", ncols=2, frameon=False)
        return figure


def errors_by_variant(variants: Sequence[ErrorsOfVariant], *, title: str) -> Figure:
    """Every seed's final test error as a dot, with the mean and its interval, a row a variant."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.9, 1.35 + 0.5 * len(variants)), layout="constrained")
        axes = figure.add_subplot()
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
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        axes.set_xlabel("test error (%)")
        axes.set_title(title)
        return figure


def confusion_matrix(
    counts: Int[np.ndarray, "classes classes"], class_names: Sequence[str], *, title: str
) -> Figure:
    """Rows are the true classes, columns the predicted ones; only the mistakes are coloured."""
    classes = len(class_names)
    mistakes = counts * (1 - np.eye(classes, dtype=counts.dtype))
    side = min(14.0, max(5.2, 1.6 + 0.42 * classes))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot()
        cells = np.zeros((classes, classes, 4))
        cells[..., :3] = to_rgb(PALETTE["vermillion"])
        cells[..., 3] = 0.65 * np.sqrt(mistakes / max(1, int(mistakes.max())))
        cells[np.arange(classes), np.arange(classes)] = (*to_rgb("#808080"), 0.14)
        axes.imshow(cells, interpolation="none")
        if classes <= MAX_ANNOTATED_CLASSES:
            for row, column in np.argwhere(counts > 0):
                axes.text(
                    column,
                    row,
                    f"{counts[row, column]}",
                    ha="center",
                    va="center",
                    fontsize=9 if counts[row, column] < 1000 else 7.5,
                    color=PALETTE["muted" if row == column else "ink"],
                )
        long_names = max(len(name) for name in class_names) > 2
        axes.set_xticks(range(classes), class_names, rotation=90 if long_names else 0)
        axes.set_yticks(range(classes), class_names)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.set_title(title)
        return figure


def image_grid(
    images: UInt8[np.ndarray, "images height width channel"],
    captions: Sequence[str],
    *,
    title: str,
) -> Figure:
    """A grid of images with a caption of one or two lines under each.

    Images of one channel are drawn dark on light, as the paper prints them.

    Raises:
        ValueError: if there are not as many captions as images.
    """
    count, height, width, channels = images.shape
    if len(captions) != count:
        raise ValueError(f"{count} images cannot have {len(captions)} captions")
    lines = [caption.split("\n") for caption in captions]
    widest = max((len(line) for caption in lines for line in caption), default=1)
    columns = 12 if widest <= 9 else 8
    rows = max(1, math.ceil(count / columns))
    tile = 504 / columns
    font_size = min(8.5, tile / (0.69 * widest))
    line_height = 1.25 * font_size
    pitch = (
        tile * height / width
        + line_height * max((len(caption) for caption in lines), default=1)
        + 7
    )
    title_height = 26
    size = (columns * tile + 2, rows * pitch + title_height)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(size[0] / POINTS_PER_INCH, size[1] / POINTS_PER_INCH))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, size[0])
        axes.set_ylim(size[1], 0)
        axes.text(1, 12, title, fontsize=9, fontweight="bold", va="center")
        pixels = np.repeat(255 - images, 3, axis=-1) if channels == 1 else images
        for index, caption in enumerate(captions):
            left = 1 + index % columns * tile
            top = title_height + index // columns * pitch
            axes.imshow(
                pixels[index],
                interpolation="none",
                extent=(left + 1.5, left + tile - 1.5, top + tile * height / width - 3, top),
                aspect="auto",
                gid=f"image-{index}",
            )
            axes.text(
                left + tile / 2,
                top + tile * height / width - 1,
                caption,
                fontsize=font_size,
                linespacing=1.05,
                ha="center",
                va="top",
                color=PALETTE["ink"],
            )
        axes.set_xlim(0, size[0])
        axes.set_ylim(size[1], 0)
        return figure


def to_svg(figure: Figure) -> str:
    """The figure as an SVG document: no date, no random names, text as text."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    return buffer.getvalue()


def _scale_values(axes: Axes, values: Sequence[Float[np.ndarray, " epochs"]]) -> None:
    numbers = np.concatenate([np.asarray(value, float) for value in values] or [np.zeros(0)])
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) and numbers.min() > 0 and numbers.max() / numbers.min() > 5:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif len(numbers):
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
            height = to_axes.transform((float(curve.epochs[finite[-1]]), value))[1]
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
