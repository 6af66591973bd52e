"""Pictures that the paper of 1998 has: the output codes, and distorted digits."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lenet.figures.style import PALETTE, POINTS_PER_INCH, styled

WIDTH = 504.0
NAMES_WIDTH = 62.0
GAP = 5.0
LINE_HEIGHT = 12.0

Picture = UInt8[np.ndarray, "height width rgb"] | Float[np.ndarray, "height width rgba"]


def bitmaps(
    asked: Float[np.ndarray, "classes height width"],
    drawn: Float[np.ndarray, "classes height width"],
    captions: Sequence[str],
    *,
    title: str,
) -> Figure:
    """The code of each class, and under it what the network draws, as in figure 3 of the paper.

    Both have one scale: blank is -1, where a code is off, and less; full is 1, where it is on, and
    more.

    Args:
        asked: the codes.
        drawn: the units compared with them.
        captions: one a class, of one or two lines.
        title: what they say.
    """
    rows = [
        (name, [_inked(picture) for picture in pictures])
        for name, pictures in (("asked for", asked), ("drawn", drawn))
    ]
    return picture_table(rows, captions, title)


def distorted(
    originals: UInt8[np.ndarray, "images height width channel"],
    versions: UInt8[np.ndarray, "versions images height width channel"],
    captions: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Images in a row, and under each its distorted versions, as in figure 7 of the paper.

    Images of one channel are drawn dark on light.
    """
    names = ["original", "distorted", *[""] * (len(versions) - 1)]
    rows = [
        (name, [_printed(image) for image in row])
        for name, row in zip(names, (originals, *versions), strict=True)
    ]
    return picture_table(rows, captions, title)


def picture_table(
    rows: Sequence[tuple[str, Sequence[Picture]]], captions: Sequence[str], title: str
) -> Figure:
    """Rows of pictures of one size with a name each, and a caption under each column."""
    columns = len(rows[0][1])
    if len(captions) != columns:
        raise ValueError(f"{columns} columns cannot have {len(captions)} captions")
    tall, wide = rows[0][1][0].shape[:2]
    width = min((WIDTH - NAMES_WIDTH) / max(columns, 4), 96.0) - GAP
    height = width * tall / wide
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    title_height = 30.0
    below = title_height + len(rows) * (height + GAP)
    size = (WIDTH, below + lines * LINE_HEIGHT + 6)
    with styled():
        figure = Figure(figsize=(size[0] / POINTS_PER_INCH, size[1] / POINTS_PER_INCH))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.text(1, 12, title, fontsize=11, fontweight="bold", va="center")
        for row, (name, pictures) in enumerate(rows):
            top = title_height + row * (height + GAP)
            axes.text(1, top + height / 2, name, va="center", fontsize=9.5)
            for column, picture in enumerate(pictures):
                left = NAMES_WIDTH + column * (width + GAP)
                axes.imshow(
                    picture,
                    interpolation="none",
                    extent=(left, left + width, top + height, top),
                    aspect="auto",
                    gid=f"picture-{row}-{column}",
                )
                axes.plot(
                    [left, left + width, left + width, left, left],
                    [top, top, top + height, top + height, top],
                    color=PALETTE["grid"],
                    linewidth=0.8,
                )
        for column, caption in enumerate(captions):
            axes.text(
                NAMES_WIDTH + column * (width + GAP) + width / 2,
                below,
                caption,
                fontsize=8.5,
                linespacing=1.15,
                ha="center",
                va="top",
            )
        axes.set_xlim(0, size[0])
        axes.set_ylim(size[1], 0)
        return figure


def _inked(values: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width rgba"]:
    painted = np.zeros((*values.shape, 4))
    painted[..., :3] = to_rgb(PALETTE["blue"])
    painted[..., 3] = np.clip((values + 1) / 2, 0, 1)
    return painted


def _printed(
    image: UInt8[np.ndarray, "height width channel"],
) -> UInt8[np.ndarray, "height width rgb"]:
    return np.repeat(255 - image, 3, axis=-1) if image.shape[-1] == 1 else image
