"""What a network does with one picture: its answer, kernels, one unit worked out, maps, fields."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lenet.figures.images import _kernel_tiles, signed
from lenet.figures.paper import _printed
from lenet.figures.style import PALETTE, POINTS_PER_INCH, styled

WIDTH = 380.0
NAME_WIDTH = 46.0
GAP = 4.0
TITLE_HEIGHT = 30.0
TITLE_CHARACTERS = 52
CAPTION_HEIGHT = 12.0
MAX_TILE_HEIGHT = 110.0
MAX_CLASSES = 10
MAX_NAME = 14
# Kernels of c3 along each axis, maps of a layer, and units.
MAX_PAIRS, MAX_MAPS, MAX_UNITS = 32, 64, 126
UNITS_IN_LINE = 7

Pixels = UInt8[np.ndarray, "height width rgb"] | Float[np.ndarray, "height width _"]


def prediction(
    picture: UInt8[np.ndarray, "height width channel"],
    probabilities: Float[np.ndarray, " classes"],
    class_names: Sequence[str],
    *,
    title: str,
) -> Figure:
    """A picture, dark on light if it has one channel, and a bar for the probability of each class.

    Of more than `MAX_CLASSES` classes, the most probable are drawn.
    """
    side, pitch = 132.0, 15.0
    picture_height = side * picture.shape[0] / picture.shape[1]
    shown = np.sort(np.argsort(-probabilities, kind="stable")[:MAX_CLASSES])
    names = [_shortened(class_names[index], MAX_NAME) for index in shown]
    start = side + 22 + 5.6 * max(map(len, names))
    longest = WIDTH - start - 44
    with _canvas(TITLE_HEIGHT + max(picture_height, pitch * len(shown)) + 6, title) as drawn:
        figure, axes = drawn
        _tile(axes, _printed(picture), (1.0, TITLE_HEIGHT, side, picture_height), "picture")
        for line, (index, name) in enumerate(zip(shown, names, strict=True)):
            middle = TITLE_HEIGHT + (line + 0.5) * pitch
            share = float(probabilities[index])
            best = index == probabilities.argmax()
            axes.text(start - 6, middle, name, ha="right", va="center", fontsize=9.5)
            axes.add_patch(
                Rectangle(
                    (start, middle - 4.5),
                    max(longest * share, 0.8),
                    9,
                    facecolor=PALETTE["blue" if best else "muted"],
                    gid=f"bar-{line}",
                )
            )
            axes.text(
                start + longest * share + 5,
                middle,
                f"{100 * share:.1f} %",
                va="center",
                fontsize=9,
                color=PALETTE["ink" if best else "muted"],
            )
        return figure


def unit_worked_out(
    pixels: Float[np.ndarray, "size size channel"],
    kernel: Float[np.ndarray, "size size channel"],
    *,
    title: str,
) -> Figure:
    """Pixels times kernel, weight by weight, with the numbers; a row for each channel."""
    size, _, channels = pixels.shape
    operator, header = 22.0, 16.0
    side = (WIDTH - 2 * operator - 4) / 3
    columns = {"pixels": pixels, "kernel": kernel, "products": pixels * kernel}
    with _canvas(TITLE_HEIGHT + header + channels * (side + GAP) + 2, title) as (figure, axes):
        for column, (name, values) in enumerate(columns.items()):
            left = 2 + column * (side + operator)
            axes.text(left, TITLE_HEIGHT + header / 2 - 2, name, va="center", fontsize=9.5)
            for channel in range(channels):
                top = TITLE_HEIGHT + header + channel * (side + GAP)
                painted = signed(values[..., channel], float(np.abs(values).max()))
                painted[..., 3] *= 0.6  # So that the numbers can be read.
                _tile(axes, painted, (left, top, side, side), f"{name}-{channel}")
                for row, place in np.ndindex(size, size):
                    axes.text(
                        left + (place + 0.5) * side / size,
                        top + (row + 0.5) * side / size,
                        _two_digits(float(values[row, place, channel])),
                        ha="center",
                        va="center",
                        fontsize=7.5,
                    )
                if column < 2:
                    axes.text(
                        left + side + operator / 2,
                        top + side / 2,
                        "\N{MULTIPLICATION SIGN}="[column],
                        ha="center",
                        va="center",
                        fontsize=14,
                    )
        return figure


def kernels(
    first: Float[np.ndarray, "size size channel first_maps"],
    second: Float[np.ndarray, "size size first_maps second_maps"],
    connected: Bool[np.ndarray, "first_maps second_maps"],
    *,
    title: str,
) -> Figure:
    """The kernels of c1, and below them those of c3, one for each connected pair of maps.

    Those of c3 stand as in Table I of the paper: a row for each map of s2, a column for each of c3.
    Blue is positive and orange negative; each layer has one scale. Of more than `MAX_MAPS` and
    `MAX_PAIRS` the first are drawn.
    """
    upper = _kernel_tiles(first[..., :MAX_MAPS])
    side = (WIDTH - NAME_WIDTH) / min(len(upper), 8) - GAP
    upper_height = math.ceil(len(upper) / 8) * (side + GAP)
    table = connected[:MAX_PAIRS, :MAX_PAIRS]
    pitch = min((WIDTH - NAME_WIDTH) / table.shape[1], side + GAP)
    top = TITLE_HEIGHT + upper_height + 24
    with _canvas(top + table.shape[0] * pitch + 4, title) as (figure, axes):
        _name(axes, "c1", TITLE_HEIGHT, upper_height)
        for index, picture in enumerate(upper):
            box = (
                NAME_WIDTH + index % 8 * (side + GAP),
                TITLE_HEIGHT + index // 8 * (side + GAP),
                side,
                side,
            )
            _tile(axes, picture, box, f"c1-{index}")
        _name(axes, "c3", top, table.shape[0] * pitch)
        number = {"fontsize": min(8.0, 0.55 * pitch), "color": PALETTE["muted"]}
        for row in range(table.shape[0]):
            place = (NAME_WIDTH - 5, top + (row + 0.5) * pitch)
            axes.text(*place, f"{row}", ha="right", va="center", **number)
        for column in range(table.shape[1]):
            place = (NAME_WIDTH + (column + 0.46) * pitch, top - 3)
            axes.text(*place, f"{column}", ha="center", va="bottom", **number)
        greatest = float(np.abs(second).max())
        margin = min(2.0, 0.1 * pitch)
        for row, column in np.argwhere(table):
            box = (
                NAME_WIDTH + column * pitch,
                top + row * pitch,
                pitch - margin,
                pitch - margin,
            )
            _tile(axes, signed(second[:, :, row, column], greatest), box, f"c3-{row}-{column}")
        return figure


def layer_maps(
    pictures: Mapping[str, Float[np.ndarray, "_ _ _"]],
    captions: Mapping[str, Sequence[str]],
    *,
    title: str,
) -> Figure:
    """What each layer makes of one picture, map height width; each layer has its own scale.

    Blue is positive, orange negative, and zero is blank. Of more than `MAX_MAPS` the first are
    drawn.

    Args:
        pictures: by layer; one that has no maps is cut into lines.
        captions: of the layers that have some, one for each picture.
        title: what they say.
    """
    lines = {name: 8 if maps[0].size > 1 else 10 for name, maps in pictures.items()}
    boxes: list[tuple[str, int, tuple[float, float, float, float]]] = []
    blocks = {}
    top = TITLE_HEIGHT
    for name, maps in pictures.items():
        count, (tall, wide), line = min(len(maps), MAX_MAPS), maps[0].shape, lines[name]
        width = (WIDTH - NAME_WIDTH) / min(count, line) - GAP
        width = min(width, MAX_TILE_HEIGHT * wide / tall)
        height = width * tall / wide
        pitch = height + GAP + (CAPTION_HEIGHT if name in captions else 0)
        for index in range(count):
            left = NAME_WIDTH + index % line * (width + GAP)
            boxes.append((name, index, (left, top + index // line * pitch, width, height)))
        blocks[name] = (top, math.ceil(count / line) * pitch)
        top += blocks[name][1] + 8
    with _canvas(top, title) as (figure, axes):
        for name, (start, height) in blocks.items():
            _name(axes, name, start, height)
        for name, index, box in boxes:
            greatest = float(np.abs(pictures[name]).max())
            _tile(axes, signed(pictures[name][index], greatest), box, f"{name}-{index}")
            if name in captions:
                text = _shortened(captions[name][index], MAX_NAME)
                size = min(8.5, box[2] / (0.62 * len(text)))
                middle = (box[0] + box[2] / 2, box[1] + box[3] + 2)
                axes.text(*middle, text, ha="center", va="top", fontsize=size)
        return figure


def receptive_fields(
    picture: UInt8[np.ndarray, "height width channel"],
    effective: Float[np.ndarray, "units height width"],
    squares: Int[np.ndarray, "units 3"],
    captions: Sequence[str],
    *,
    title: str,
) -> Figure:
    """For each unit, the square of the picture that it sees, and below what it depends on in it.

    Args:
        picture: drawn dark on light if it has one channel.
        effective: of each unit the magnitude of its derivative by each pixel; white is zero, and
            the greatest of each unit has the full colour.
        squares: of each unit top, left and side.
        captions: one for each unit, of one or two lines.
        title: what they say.
    """
    names, shown = ("theoretical", "effective"), len(effective)
    name_width = 60.0
    width = (WIDTH - name_width) / max(shown, 4) - GAP
    height = width * picture.shape[0] / picture.shape[1]
    pixel = width / picture.shape[1]
    below = TITLE_HEIGHT + 2 * (height + GAP)
    with _canvas(below + 2 * CAPTION_HEIGHT + 6, title) as (figure, axes):
        for unit, (first, beginning, side) in enumerate(squares.tolist()):
            left = name_width + unit * (width + GAP)
            for row, pixels in enumerate((_printed(picture), _heat(effective[unit]))):
                top = TITLE_HEIGHT + row * (height + GAP)
                _tile(axes, pixels, (left, top, width, height), f"{names[row]}-{unit}")
                axes.add_patch(
                    Rectangle(
                        (left + beginning * pixel, top + first * pixel),
                        side * pixel,
                        side * pixel,
                        facecolor="none",
                        edgecolor=PALETTE["blue"],
                        linewidth=1.4,
                        gid=f"square-{row}-{unit}",
                    )
                )
            axes.text(left + width / 2, below, captions[unit], ha="center", va="top", fontsize=8.5)
        for row, name in enumerate(names):
            _name(axes, name, TITLE_HEIGHT + row * (height + GAP), height)
        return figure


def excited(
    images: UInt8[np.ndarray, "units shown height width channel"],
    responding: Bool[np.ndarray, " units"],
    *,
    title: str,
) -> Figure:
    """Of each unit its number and, in a square, up to four images, the first at the upper left.

    Images of one channel are drawn dark on light. Units that do not respond are left blank. Of more
    than `MAX_UNITS` the first are drawn.
    """
    count = min(len(images), MAX_UNITS)
    width = (WIDTH - 2) / UNITS_IN_LINE - GAP - 1
    height = width * images.shape[2] / images.shape[3]
    pitch = height + CAPTION_HEIGHT + 2
    total = TITLE_HEIGHT + math.ceil(count / UNITS_IN_LINE) * pitch + 2
    with _canvas(total, title) as (figure, axes):
        for unit in range(count):
            left = 1 + unit % UNITS_IN_LINE * (width + GAP + 1)
            top = TITLE_HEIGHT + unit // UNITS_IN_LINE * pitch
            if responding[unit]:
                _tile(axes, _square(images[unit]), (left, top, width, height), f"unit-{unit}")
            else:
                axes.text(
                    left + width / 2,
                    top + height / 2,
                    "no response",
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=PALETTE["muted"],
                )
            axes.text(
                left + width / 2, top + height + 1.5, f"{unit}", ha="center", va="top", fontsize=8
            )
        return figure


@contextlib.contextmanager
def _canvas(height: float, title: str) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one axes, in points from its upper left corner."""
    with styled(), matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        text = _shortened(title, TITLE_CHARACTERS)
        axes.text(1, 12, text, fontsize=11, fontweight="bold", va="center")
        yield figure, axes
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)


def _tile(
    axes: Axes, picture: Pixels, box: tuple[float, float, float, float], identity: str
) -> None:
    """A picture with a thin frame; the box is left, top, width and height."""
    left, top, width, height = box
    frame = (left, left + width, top + height, top)
    axes.imshow(picture, interpolation="none", extent=frame, aspect="auto", gid=identity)
    axes.add_patch(
        Rectangle(
            (left, top),
            width,
            height,
            facecolor="none",
            edgecolor=PALETTE["grid"],
            linewidth=0.8,
        )
    )


def _name(axes: Axes, name: str, top: float, height: float) -> None:
    axes.text(1, top + height / 2, name, va="center", fontsize=9.5)


def _heat(magnitudes: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width rgb"]:
    share = magnitudes / max(float(magnitudes.max()), 1e-12)
    return 1 - share[..., None] * (1 - np.array(to_rgb(PALETTE["vermillion"])))


def _square(
    images: UInt8[np.ndarray, "shown height width channel"],
) -> UInt8[np.ndarray, "_ _ rgb"]:
    """Up to four images, two in a line, with a line of white between them."""
    _, height, width, _ = images.shape
    square = np.full((2 * height + 1, 2 * width + 1, 3), 255, np.uint8)
    for index, image in enumerate(images[:4]):
        top, left = index // 2 * (height + 1), index % 2 * (width + 1)
        square[top : top + height, left : left + width] = _printed(image)
    return square


def _two_digits(value: float) -> str:
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
    return "0" if float(text) == 0 else text


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}\N{HORIZONTAL ELLIPSIS}"
