"""How every figure looks, and its SVG."""

import io
import textwrap
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def to_svg(figure: Figure) -> str:
    """The figure as an SVG document: no date, no random names, text as text."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with styled():
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    return buffer.getvalue()
