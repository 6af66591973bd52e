"""How every figure looks, and its SVG."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

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
POINTS_PER_INCH = 72
FAR = 20.0
WIDE = 3
BOLD_CHARACTER = 6.9  # points, on average

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


def styled() -> AbstractContextManager[None]:
    """The settings in which a figure is drawn."""
    return matplotlib.rc_context(_STYLE)


def series_color(index: int) -> str:
    """The colour of the series numbered `index`; they repeat after six."""
    return PALETTE[SERIES[index % len(SERIES)]]


def line_style(index: int) -> str:
    """The line of the series numbered `index`, another one when the colours repeat."""
    return LINE_STYLES[index // len(SERIES) % len(LINE_STYLES)]


def headline(figure: Figure, title: str) -> None:
    """A title over the whole width of a figure, on as many lines as it needs."""
    columns = int(figure.get_figwidth() * POINTS_PER_INCH / BOLD_CHARACTER)
    text = textwrap.fill(title, max(columns, 20))
    figure.suptitle(text, x=0.012, ha="left", fontsize=11, fontweight="bold")


def rows_only(axes: Axes) -> None:
    """Rows with a name each and a scale below: vertical grid lines and no ticks at the names."""
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)


def log_if_wide(axis: Axis, values: Sequence[float] | Float[np.ndarray, " _"]) -> bool:
    """Puts an axis on a log scale if its values are positive and span more than a factor of `WIDE`.

    Returns:
        Whether it did.
    """
    if len(values) == 0 or min(values) <= 0 or max(values) <= WIDE * min(values):
        return False
    if axis is axis.axes.xaxis:
        axis.axes.set_xscale("log")
    else:
        axis.axes.set_yscale("log")
    decades = np.log10(max(values) / min(values))
    if decades < 1.08:
        subs: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    else:
        subs = (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return True


def in_view(values: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest of the values that are not far from most of them.

    Far is `FAR` times as far from their median as half of them are.
    """
    distances = np.abs(np.asarray(values) - np.median(values))
    reach = FAR * np.median(distances) or np.inf
    inside = np.asarray(values)[distances <= reach]
    return float(inside.min()), float(inside.max())


def zoom(axes: Axes, rows: Sequence[Sequence[float]]) -> None:
    """Leaves values that are far from most out of the x axis, and tells them in their rows.

    Without it, one variant that learns nothing leaves no room to see the others apart.
    """
    values = [value for row in rows for value in row]
    low, high = in_view(values) if values else (0.0, 0.0)
    if not values or low == high or (min(values), max(values)) == (low, high):
        return
    margin = 0.05 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    for row, of_row in enumerate(rows):
        for place, beyond, text in (
            (0, [value for value in of_row if value < low], "\N{LEFTWARDS ARROW} to {:.1f}"),
            (1, [value for value in of_row if value > high], "to {:.1f} \N{RIGHTWARDS ARROW}"),
        ):
            if beyond:
                axes.annotate(
                    text.format(max(beyond, key=abs)),
                    (place, row),
                    xycoords=("axes fraction", "data"),
                    xytext=(3 if place == 0 else -3, 0),
                    textcoords="offset points",
                    ha="right" if place else "left",
                    va="center",
                    fontsize=9,
                    bbox={"facecolor": PALETTE["card"], "edgecolor": "none", "pad": 1.5},
                )


def to_svg(figure: Figure) -> str:
    """The figure as an SVG document: no date, no random names, text as text."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with styled():
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    return buffer.getvalue()
