"""Pictures that the claims need besides those of every report: signed images, shares of a whole."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from lenet.figures.images import signed
from lenet.figures.paper import picture_table
from lenet.figures.style import PALETTE, headline, rows_only, styled

Images = Float[np.ndarray, "images height width"]


def signed_images(
    values: Images | Sequence[Images],
    captions: Sequence[str],
    *,
    title: str,
    rows: Sequence[str] = ("",),
) -> Figure:
    """Images of signed numbers in rows: blue is positive, orange negative, blank zero.

    Each image has its own scale, whose end is its greatest magnitude.

    Args:
        values: of each row the images; a single array is one row.
        captions: under each column.
        title: what they say.
        rows: their names.
    """
    each = [values] if isinstance(values, np.ndarray) else list(values)
    table = [
        (name, [signed(image, float(np.abs(image).max())) for image in images])
        for name, images in zip(rows, each, strict=True)
    ]
    return picture_table(table, captions, title)


def shares(
    labels: Sequence[str],
    fractions: Sequence[float],
    *,
    title: str,
    xlabel: str,
    reference: tuple[str, float] | None = None,
) -> Figure:
    """A bar a row, from 0 to 100 %, with its number, and a line for what was said of them."""
    with styled():
        figure = Figure(figsize=(5.9, 1.3 + 0.34 * len(labels)), layout="constrained")
        axes = figure.add_subplot()
        places = range(len(labels))
        axes.barh(places, [100 * each for each in fractions], height=0.62, color=PALETTE["blue"])
        for place, fraction in zip(places, fractions, strict=True):
            axes.annotate(
                f"{100 * fraction:.1f} %",
                (100 * fraction, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        if reference is not None:
            label, value = reference
            axes.axvline(
                100 * value, color=PALETTE["vermillion"], linewidth=1.5, linestyle="--", label=label
            )
            figure.legend(loc="outside lower left", frameon=False, fontsize=9)
        axes.set_yticks(places, labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(0, 112)
        axes.set_xticks((0, 20, 40, 60, 80, 100))
        rows_only(axes)
        axes.set_xlabel(xlabel)
        headline(figure, title)
        return figure
