"""What networks make of one picture, section by section, the networks side by side."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from lenet import codes, figures
from lenet.templates.document import Block, Notice, Plot, Row, Section, Table, Text, plot
from lenet.templates.run import phrase, plural

COLOURS = "Blue is positive, orange negative, blank zero."
LONGEST_LINE = 30


@dataclasses.dataclass(frozen=True, eq=False)
class ReceptiveField:
    """What one unit of a layer sees of a picture.

    Attributes:
        layer: its layer.
        unit: its map, row and column.
        square: top, left and side in pixels of the square that it sees.
        effective: the magnitude of its derivative by each pixel, summed over the channels.
    """

    layer: str
    unit: tuple[int, int, int]
    square: tuple[int, int, int]
    effective: Float[np.ndarray, "height width"]


@dataclasses.dataclass(frozen=True, eq=False)
class Excited:
    """The images to which each unit of f6 responds most.

    Attributes:
        images: the one with the greatest response first.
        responding: false for a unit to which all images are the same.
        count: of how many images they were chosen.
    """

    images: UInt8[np.ndarray, "unit shown height width channel"]
    responding: Bool[np.ndarray, " unit"]
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Look:
    """What one network makes of one picture.

    Attributes:
        label: what the network is called.
        trial: its id.
        choices: activation, pooling, connections and head.
        class_names: in the order of the outputs.
        picture: padded to the size that the network takes.
        pixels: the picture as the network is given it: normalised.
        probabilities: of each class.
        first: the kernels of c1.
        second: those of c3.
        connected: which maps of s2 feed which of c3.
        bias: of c1.
        maps: by layer what it makes of the picture: map height width, or units.
        fields: of one unit each of the layers that have maps.
        excited: what excites f6, a sentence that says why that is not known, or None without f6.
    """

    label: str
    trial: str
    choices: Mapping[str, str]
    class_names: Sequence[str]
    picture: UInt8[np.ndarray, "height width channel"]
    pixels: Float[np.ndarray, "height width channel"]
    probabilities: Float[np.ndarray, " classes"]
    first: Float[np.ndarray, "size size channel first_maps"]
    second: Float[np.ndarray, "size size first_maps second_maps"]
    connected: Bool[np.ndarray, "first_maps second_maps"]
    bias: Float[np.ndarray, " first_maps"]
    maps: Mapping[str, Float[np.ndarray, "..."]]
    fields: tuple[ReceptiveField, ...]
    excited: Excited | str | None

    @property
    def answer(self) -> tuple[str, float]:
        """The most probable class and its probability."""
        best = int(self.probabilities.argmax())
        return self.class_names[best], float(self.probabilities[best])


def sections(looks: Sequence[Look]) -> tuple[Section, ...]:
    """The whole page."""
    found = (answers(looks), kernels(looks), maps(looks), receptive_fields(looks), excited(looks))
    return tuple(section for section in found if section is not None)


def answers(looks: Sequence[Look]) -> Section:
    """The picture, and which class each network takes it for."""
    rows = []
    for each in looks:
        name, probability = each.answer
        made_of = ", ".join(phrase(field, value) for field, value in each.choices.items())
        rows.append((each.label, name, f"{probability:.4f}", each.trial, made_of))
    return Section(
        "The picture and its class",
        (
            Table(("network", "class", "probability", "trial", "made of"), tuple(rows)),
            Row(
                tuple(
                    plot(
                        f"answer_{number}",
                        figures.prediction(
                            each.picture, each.probabilities, each.class_names, title=each.label
                        ),
                        f"The picture, and the probability of each class by {each.label}.",
                        f"{_size(each)} pixels, as {each.label} takes them.",
                        paper=each.picture.shape[-1] == 1,
                    )
                    for number, each in enumerate(looks)
                )
            ),
        ),
    )


def kernels(looks: Sequence[Look]) -> Section:
    """What a kernel is, by one unit of c1, and all kernels of c1 and c3."""
    size = looks[0].first.shape[0]
    how = (
        f"A kernel is a square of {size}x{size} weights. It is laid on {size}x{size} pixels, and "
        "each weight is multiplied by the pixel under it. The sum of the products and of a bias, "
        "put through the activation, is one unit of a feature map. The same kernel laid on every "
        "place of the picture gives the whole map: it is large where the picture looks like the "
        "kernel."
    )
    every = (
        "Below are all kernels of c1, one for each of its maps, and those of c3, one for each pair "
        f"of a map of s2 (row) and a map of c3 (column). {COLOURS} Each layer has its own scale."
    )
    if not all(each.connected.all() for each in looks):
        every += " A pair that is not connected (the paper's Table I) has none."
    if any(each.first.shape[2] == 3 for each in looks):
        every += " Kernels on three colours are shown in these colours, with zero mid-grey."
    if any(
        max(each.connected.shape) > figures.MAX_PAIRS or each.first.shape[3] > figures.MAX_MAPS
        for each in looks
    ):
        every += (
            f" Of more than {figures.MAX_MAPS} kernels of c1, and of more than "
            f"{figures.MAX_PAIRS} maps along a side of c3, the first are drawn."
        )
    drawn = tuple(
        plot(
            f"kernels_{number}",
            figures.kernels(each.first, each.second, each.connected, title=each.label),
            f"The kernels of c1 and c3 of {each.label}.",
            _count_of_kernels(each),
        )
        for number, each in enumerate(looks)
    )
    worked = tuple(_worked_out(number, each) for number, each in enumerate(looks))
    return Section("Kernels", (Text(how), Row(worked), Text(every), Row(drawn)))


def _worked_out(number: int, look: Look) -> Plot:
    """The greatest unit of c1, from its pixels to its activation."""
    units = look.maps["c1"]
    of, row, column = (int(index) for index in np.unravel_index(units.argmax(), units.shape))
    kernel = look.first[..., of]
    size = len(kernel)
    patch = look.pixels[row : row + size, column : column + size]
    total = float((patch * kernel).sum())
    bias, result = float(look.bias[of]), float(units[of, row, column])
    sign = "-" if bias < 0 else "+"
    place = f"map {of}, row {row}, column {column}"
    return plot(
        f"unit_{number}",
        figures.unit_worked_out(patch, kernel, title=look.label),
        f"Pixels times the kernel of c1 for {place} in {look.label}.",
        f"The greatest unit of c1, {place}: the products sum to {total:.3f}; {total:.3f} {sign} "
        f"{abs(bias):.3f} (bias) = {total + bias:.3f}, and after {look.choices['activation']} the "
        f"unit is {result:.3f}.",
    )


def maps(looks: Sequence[Look]) -> Section:
    """What each layer makes of the picture."""
    text = (
        "What each layer makes of the picture, after the activation. In c1 and c3 each small "
        "picture is a feature map, one kernel's (of c3, one column of kernels') answer at every "
        "place; s2 and s4 are these after pooling. What follows has no places any more: its units "
        f"stand line by line. {COLOURS} Each layer has its own scale."
    )
    if any(each.choices["head"] == "rbf" for each in looks):
        text += (
            " With the rbf head, f6 draws a bitmap, 7 units wide and 12 high, and an output is "
            "minus the squared distance of that drawing to a class's bitmap: the one nearest to "
            "blank is the answer."
        )
    if any(values.ndim == 3 and len(values) > figures.MAX_MAPS for values in _maps_of(looks)):
        text += f" Of more than {figures.MAX_MAPS} maps of a layer the first are drawn."
    drawn = []
    for number, each in enumerate(looks):
        shown = {name: _as_pictures(each, name) for name in each.maps}
        few = len(each.class_names) <= figures.MAX_CLASSES
        captions = {"output": tuple(each.class_names)} if few else {}
        drawn.append(
            plot(
                f"maps_{number}",
                figures.layer_maps(shown, captions, title=each.label),
                f"What {', '.join(shown)} of {each.label} make of the picture.",
                "; ".join(f"{name}: {_count(values)}" for name, values in each.maps.items()) + ".",
            )
        )
    return Section("Feature maps", (Text(text), Row(tuple(drawn))))


def receptive_fields(looks: Sequence[Look]) -> Section:
    """The square that a unit sees, and which pixels in it matter."""
    sides = {field.layer: field.square[2] for each in looks for field in each.fields}
    listed = ", ".join(f"{side}x{side} pixels in {layer}" for layer, side in sides.items())
    text = (
        "A unit sees a square of the picture and nothing else: its receptive field, the greater "
        f"the later the layer ({listed}); the layers after that see all of it. Above, the "
        "square on the picture. Below, how much each pixel in it matters for this picture: the "
        "magnitude of the unit's derivative by it, the more coloured the greater, on a scale of "
        "its own for each unit. The unit is one near the middle of its layer, of the map that "
        "depends most on the pixels there."
    )
    if any(each.choices["pooling"] == "max" for each in looks):
        text += (
            " Max pooling passes on the greatest of four units alone, so that not every pixel "
            "matters."
        )
    drawn = []
    for number, each in enumerate(looks):
        captions = [
            f"{field.layer}: {field.square[2]}x{field.square[2]}\nmap {field.unit[0]}"
            for field in each.fields
        ]
        matter = [
            f"{np.count_nonzero(field.effective)} of {field.square[2] ** 2} in {field.layer}"
            for field in each.fields
        ]
        drawn.append(
            plot(
                f"fields_{number}",
                figures.receptive_fields(
                    each.picture,
                    np.stack([field.effective for field in each.fields]),
                    np.array([field.square for field in each.fields]),
                    captions,
                    title=each.label,
                ),
                f"Theoretical and effective receptive fields in {each.label}.",
                f"Pixels that matter: {', '.join(matter)}.",
                paper=each.picture.shape[-1] == 1,
            )
        )
    return Section("Receptive fields", (Text(text), Row(tuple(drawn))))


def excited(looks: Sequence[Look]) -> Section | None:
    """The test images to which each unit of f6 responds most; None if no network has an f6."""
    drawn = []
    notices = []
    for number, each in enumerate(looks):
        match each.excited:
            case None:
                pass
            case str(reason):
                whose = "What excites f6" + (f" of {each.label}" if len(looks) > 1 else "")
                notices.append(Notice(f"**{whose} is not drawn.** {reason}"))
            case Excited(images, responding, count):
                caption = f"Chosen from {plural(count, 'test image')}."
                if not responding.all():
                    silent = f"{(~responding).sum()} of {len(responding)}"
                    caption += f" Units to which all images are the same: {silent}."
                if len(images) > figures.MAX_UNITS:
                    caption += f" The first {figures.MAX_UNITS} of {len(images)} units are drawn."
                drawn.append(
                    plot(
                        f"excited_{number}",
                        figures.excited(images, responding, title=each.label),
                        f"For each unit of f6 of {each.label} the images that excite it most.",
                        caption,
                        paper=images.shape[-1] == 1,
                    )
                )
    blocks: list[Block] = [*notices]
    if drawn:
        text = (
            "For each unit of f6, by its number, the test images to which it responds most, the "
            "greatest activation at the upper left. What they have in common is what the unit "
            "stands for."
        )
        if any(
            isinstance(each.excited, Excited) and each.choices["head"] == "rbf" for each in looks
        ):
            text += (
                " With the rbf head each unit is a pixel of the bitmap that f6 draws, and stands "
                "where it is in the bitmap: its images are mostly of the classes whose bitmap has "
                "ink there, if there are any."
            )
        blocks += [Text(text), Row(tuple(drawn))]
    return Section("What excites f6", tuple(blocks)) if blocks else None


def _maps_of(looks: Sequence[Look]) -> list[Float[np.ndarray, "..."]]:
    return [values for each in looks for values in each.maps.values()]


def _as_pictures(look: Look, layer: str) -> Float[np.ndarray, "_ _ _"]:
    """Maps as they are; units as one picture of lines of equal length, the outputs as one each."""
    values = look.maps[layer]
    if values.ndim == 3:
        return values
    if layer == "output" and len(values) <= figures.MAX_CLASSES:
        return values.reshape(-1, 1, 1)
    if layer == "f6" and look.choices["head"] == "rbf":
        return values.reshape(1, codes.HEIGHT, codes.WIDTH)
    lines = math.ceil(len(values) / LONGEST_LINE)
    length = math.ceil(len(values) / lines)
    return np.pad(values, (0, lines * length - len(values))).reshape(1, lines, length)


def _count_of_kernels(look: Look) -> str:
    """How many kernels c1 and c3 have, and how many parameters with the biases."""
    area, first = look.first[..., 0, 0].size, look.first.shape[2] * look.first.shape[3]
    second = int(look.connected.sum())
    counts = {"c1": (first, look.first.shape[3]), "c3": (second, look.connected.shape[1])}
    texts = [
        f"{layer}: {plural(kernels, 'kernel')}, {area * kernels + biases:,} parameters with biases"
        for layer, (kernels, biases) in counts.items()
    ]
    return f"{'; '.join(texts)}."


def _count(values: Float[np.ndarray, "..."]) -> str:
    if values.ndim == 1:
        return plural(len(values), "unit")
    return f"{plural(len(values), 'map')} of {values.shape[1]}x{values.shape[2]}"


def _size(look: Look) -> str:
    return "x".join(map(str, look.picture.shape[:2]))
