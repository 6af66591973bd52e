"""Pictures made of pixels: confusion matrix, images with captions, kernels and feature maps."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lenet.figures.style import PALETTE, POINTS_PER_INCH, styled

MAX_ANNOTATED_CLASSES = 26


def confusion_matrix(
    counts: Int[np.ndarray, "classes classes"], class_names: Sequence[str], *, title: str
) -> Figure:
    """Rows are the true classes, columns the predicted ones; only the mistakes are coloured."""
    classes = len(class_names)
    mistakes = counts * (1 - np.eye(classes, dtype=counts.dtype))
    side = min(14.0, max(5.2, 1.6 + 0.42 * classes))
    with styled():
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
    with styled():
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


def portrait(
    kernels: Float[np.ndarray, "size size in_channel out_channel"],
    layers: Mapping[str, Float[np.ndarray, "_ _ _"]],
    *,
    title: str,
) -> Figure:
    """The kernels of a first layer, and below them the maps of one image, layer by layer.

    Blue is positive, orange negative, and what is zero is not painted; each row of kernels or maps
    has its own scale, whose end is its greatest magnitude. Kernels on three channels are shown in
    colour, with zero mid-grey.
    """
    tiles = {"kernels": _kernel_tiles(kernels)}
    tiles |= {
        name: [signed(each, float(np.abs(maps).max())) for each in maps]
        for name, maps in layers.items()
    }
    width, name_width, gap, line = 380.0, 52.0, 4.0, 8
    side = {
        name: (width - name_width) / (min(len(each), line)) - gap for name, each in tiles.items()
    }
    rows = {name: math.ceil(len(each) / line) for name, each in tiles.items()}
    title_height, between = 30.0, 9.0
    height = title_height + sum(rows[name] * (side[name] + gap) + between for name in tiles)
    with styled():
        figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.text(1, 12, title, fontsize=11, fontweight="bold", va="center")
        top = title_height
        for name, pictures in tiles.items():
            block = rows[name] * (side[name] + gap)
            axes.text(1, top + block / 2, name, va="center", fontsize=9.5)
            for index, picture in enumerate(pictures):
                left = name_width + index % line * (side[name] + gap)
                upper = top + index // line * (side[name] + gap)
                frame = (left, left + side[name], upper + side[name], upper)
                axes.imshow(
                    picture,
                    interpolation="none",
                    extent=frame,
                    aspect="auto",
                    gid=f"{name}-{index}",
                )
                axes.add_patch(
                    Rectangle(
                        (left, upper),
                        side[name],
                        side[name],
                        facecolor="none",
                        edgecolor=PALETTE["grid"],
                        linewidth=0.8,
                    )
                )
            top += block + between
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        return figure


def _kernel_tiles(
    kernels: Float[np.ndarray, "size size in_channel out_channel"],
) -> list[Float[np.ndarray, "size size rgba"]]:
    greatest = float(np.abs(kernels).max())
    if kernels.shape[2] == 3:
        shown = 0.5 + 0.5 * kernels / max(greatest, 1e-12)
        return [shown[..., index] for index in range(kernels.shape[3])]
    return [signed(kernels[:, :, 0, index], greatest) for index in range(kernels.shape[3])]


def signed(
    values: Float[np.ndarray, "height width"], greatest: float
) -> Float[np.ndarray, "height width 4"]:
    """Signed numbers as colours: blue above zero, orange below, full at `greatest`."""
    positive, negative = (to_rgb(PALETTE[name]) for name in ("blue", "vermillion"))
    painted = np.zeros((*values.shape, 4))
    painted[..., :3] = np.where((values >= 0)[..., None], positive, negative)
    painted[..., 3] = np.abs(values) / max(float(greatest), 1e-12)
    return painted
