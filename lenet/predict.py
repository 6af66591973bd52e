"""Classifies images with a trained model.

    python -m lenet.predict --workdir=runs/a digit.png more/ test-images-idx3-ubyte.gz

Arguments are PNG and JPEG files, folders of them, and IDX files of images. An image must have the
size that the network was trained on; `--fit` brings any other to it.
"""

import dataclasses
import functools
import json
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from flax import linen as nn
from jaxtyping import Array, Float32, Int32, UInt8
from PIL import Image, ImageOps

from lenet import checkpoints, data, formats

BATCH_SIZE = 256
FOLDER_FILE = re.compile(r".*(\.png|\.jpe?g|\.idx(\.gz)?|idx[34]-ubyte(\.gz)?)", re.IGNORECASE)
INK = 0.2  # as a share of the way from the darkest to the brightest pixel
FIT_SHARE = 20 / 28
MODES = {1: "L", 3: "RGB"}
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
MAX_REPORTED = 3


@runtime_checkable
class Trained(Protocol):
    """What is needed of `checkpoints.Trained`."""

    @property
    def trial(self) -> str:
        """Its id."""

    @property
    def model(self) -> nn.Module:
        """Images to logits."""

    @property
    def params(self) -> Any:
        """Its parameters."""

    @property
    def affine(self) -> data.Affine:
        """The normalization that it was trained with."""

    @property
    def dataset(self) -> dict[str, Any]:
        """What `dataset.json` says."""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One image, as the network takes it.

    Attributes:
        file: where it was read from.
        index: which image of an IDX file it is; None for other files.
        pixels: padded to the size that the network was trained on.
        dark_on_light: whether it looks like a dark digit on a light ground, unlike the training
          images of MNIST and its like.
    """

    file: str
    index: int | None
    pixels: UInt8[np.ndarray, "height width channel"]
    dark_on_light: bool = False


@functools.partial(jax.jit, static_argnames=("model", "affine"))
def _probabilities(
    model: nn.Module,
    params: Any,
    affine: data.Affine,
    images: UInt8[Array, "batch height width channel"],
) -> Float32[Array, "batch classes"]:
    logits = model.apply({"params": params}, data.normalize(images, affine))
    return jax.nn.softmax(jnp.asarray(logits, jnp.float32))


def classify(
    trained: Trained, images: UInt8[np.ndarray, "image height width channel"]
) -> tuple[Int32[np.ndarray, " image"], Float32[np.ndarray, "image classes"]]:
    """The most probable class of each image, and the probabilities of all classes.

    Args:
        trained: see `checkpoints.load_trained`.
        images: raw pixels, of the size of the data set's images, or padded already.

    Raises:
        ValueError: if the images have another size or number of channels.
    """
    shape = tuple(trained.dataset["image_shape"])
    if images.shape[1:] not in (shape, tuple(trained.dataset["native_shape"])):
        raise ValueError(
            f"the images are {_by(images.shape[1:])}, but the network takes {_wanted(trained)}"
        )
    images = _pad(images, shape)
    found = [np.zeros((0, len(trained.dataset["class_names"])), np.float32)]
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE]
        # Every batch has the same size, so that there is one compilation.
        filled = np.pad(batch, ((0, BATCH_SIZE - len(batch)), (0, 0), (0, 0), (0, 0)))
        probabilities = _probabilities(trained.model, trained.params, trained.affine, filled)
        found.append(np.asarray(probabilities)[: len(batch)])
    probabilities = np.concatenate(found)
    if not np.isfinite(probabilities).all():
        raise ValueError(f"trial {trained.trial} gives no finite probabilities: it has diverged")
    return probabilities.argmax(1).astype(np.int32), probabilities


def read_pictures(
    trained: Trained, paths: Sequence[str], *, invert: bool = False, fit: bool = False
) -> list[Picture]:
    """Reads files and folders of images, in the order given and by name within a folder.

    Args:
        trained: says which images the network takes.
        paths: PNG, JPEG and IDX files, and folders of them, searched with all they hold.
        invert: turn dark ink on a light ground into light ink on a dark ground.
        fit: bring images of any size to the network's, see `fit_digit`.

    Raises:
        ValueError: if any of them cannot be used. The message, of one line, says which and why.
    """
    pictures: list[Picture] = []
    problems: list[str] = []
    files = 0
    for path in paths:
        try:
            found = _files(Path(path))
        except (OSError, ValueError) as error:
            problems.append(str(error))
            files += 1
            continue
        for file in found:
            files += 1
            try:
                pictures += _read(trained, file, invert, fit)
            except (OSError, ValueError) as error:
                problems.append(str(error))
    if problems:
        shown = "; ".join(problems[:MAX_REPORTED])
        more = f"; and {len(problems) - MAX_REPORTED} more" if len(problems) > MAX_REPORTED else ""
        count = f"{len(problems)} of {files} cannot be classified: " if files > 1 else ""
        raise ValueError(f"{count}{shown}{more}")
    return pictures


def fit_digit(
    pixels: UInt8[np.ndarray, "height width"], side: int = 28
) -> UInt8[np.ndarray, "side side"]:
    """Size-normalises light ink on a dark ground as the authors of MNIST did.

    The smallest rectangle around the ink is scaled, with its proportions, until its longer side is
    20 pixels (of 28), and put where its centre of mass is in the middle (LeCun et al. 1998,
    section III.A).

    Raises:
        ValueError: if all pixels are alike, so that there is no ink.
    """
    low, high = int(pixels.min()), int(pixels.max())
    if low == high:
        raise ValueError("all its pixels are alike, so there is no ink to fit")
    ink = pixels > low + INK * (high - low)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    cropped = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = round(FIT_SHARE * side) / max(cropped.shape)
    height, width = (max(1, round(scale * length)) for length in cropped.shape)
    # Pillow widens its filter when it shrinks an image, which keeps thin strokes.
    resized = Image.fromarray(cropped).resize((width, height), Image.Resampling.BICUBIC)
    digit = np.asarray(resized)
    mass = digit.astype(np.float64)
    total = max(mass.sum(), 1.0)
    centers = (np.arange(height) @ mass.sum(1) / total, np.arange(width) @ mass.sum(0) / total)
    # MNIST's middle is pixel 14 of 0 to 27: that is the mean centre of mass of its images.
    top, left = (
        int(np.clip(round(side // 2 - center), 0, side - length))
        for center, length in zip(centers, digit.shape, strict=True)
    )
    fitted = np.zeros((side, side), np.uint8)
    fitted[top : top + height, left : left + width] = digit
    return fitted


def looks_dark_on_light(pixels: UInt8[np.ndarray, "height width channel"]) -> bool:
    """Whether the border of an image is lighter than mid-grey on average."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    return float(border.mean()) > 127.5


def hint(pictures: Sequence[Picture], inverted: bool) -> str:
    """Advice if there are pictures that look dark on light, else nothing."""
    files = [picture.file for picture in pictures if picture.dark_on_light]
    if not files:
        return ""
    which = f"{files[0]} looks" if len(files) == 1 else f"{len(files)} of the images look"
    advice = "without --invert" if inverted else "--invert"
    return f"hint: {which} dark on light, but the network learned light on dark; try {advice}"


def table(
    pictures: Sequence[Picture],
    class_names: Sequence[str],
    labels: Int32[np.ndarray, " image"],
    probabilities: Float32[np.ndarray, "image classes"],
) -> str:
    """A line an image: file, class, probability."""
    rows = [("file", "class", "probability")]
    for picture, label, row in zip(pictures, labels, probabilities, strict=True):
        rows.append((_name(picture), class_names[label], f"{row[label]:.4f}"))
    files, classes = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{file:{files}}  {name:{classes}}  {shown}" for file, name, shown in rows)


def json_lines(
    pictures: Sequence[Picture],
    class_names: Sequence[str],
    labels: Int32[np.ndarray, " image"],
    probabilities: Float32[np.ndarray, "image classes"],
) -> str:
    """A JSON object a line and image; `index` is the image's place in an IDX file, or null."""
    return "\n".join(
        json.dumps(
            {
                "file": picture.file,
                "index": picture.index,
                "label": int(label),
                "class": class_names[label],
                "probability": float(row[label]),
                "probabilities": [float(probability) for probability in row],
            },
            ensure_ascii=False,
        )
        for picture, label, row in zip(pictures, labels, probabilities, strict=True)
    )


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_dir():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.is_file()
        and FOLDER_FILE.fullmatch(file.name)
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not found:
        raise FileNotFoundError(
            f"{path} holds no .png, .jpg or .jpeg file and no IDX file of images"
        )
    return found


def _read(trained: Trained, path: Path, invert: bool, fit: bool) -> list[Picture]:
    channels = trained.dataset["native_shape"][-1]
    if channels not in MODES:
        raise ValueError(f"{path}: the network takes {channels} channels, image files have 1 or 3")
    with path.open("rb") as file:
        indexed = file.read(2) in (b"\x1f\x8b", b"\x00\x00")
    images = _read_idx(path) if indexed else _read_image(path)
    pictures = []
    for index, image in enumerate(images):
        pixels = np.asarray(_flatten(image).convert(MODES[channels]))
        pixels = pixels.reshape(*pixels.shape[:2], channels)
        pixels = 255 - pixels if invert else pixels
        suspicious = channels == 1 and not indexed and looks_dark_on_light(pixels)
        pixels = _sized(trained, path, pixels, fit)
        pictures.append(Picture(str(path), index if indexed else None, pixels, suspicious))
    return pictures


def _read_idx(path: Path) -> Iterator[Image.Image]:
    array = formats.from_idx(path.read_bytes(), str(path))
    if array.dtype != np.uint8:
        raise ValueError(f"{path} holds {array.dtype}; pixels must be bytes (uint8)")
    if array.ndim == 4 and array.shape[-1] not in MODES:
        raise ValueError(
            f"{path} holds images of {array.shape[-1]} channels; they must have 1 or 3"
        )
    if 0 in array.shape:
        raise ValueError(f"{path} holds no image: its shape is {_by(array.shape)}")
    for pixels in array:
        yield Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def _read_image(path: Path) -> list[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                image.load()
                return [ImageOps.exif_transpose(image)]
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a PNG, JPEG or IDX file of images") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path} has too many pixels") from error
    except BROKEN as error:
        raise ValueError(f"{path} is broken: {formats.one_line(error)}") from error


def _flatten(image: Image.Image) -> Image.Image:
    """8 bits a channel, and what is transparent laid on a ground that the ink stands out from."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if "A" not in image.mode and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    opacity = np.asarray(image.getchannel("A"), np.float64)
    brightness = np.asarray(image.convert("RGB").convert("L"), np.float64)
    dark_ink = opacity.any() and np.average(brightness, weights=opacity) < 127.5
    ground = Image.new("RGBA", image.size, "white" if dark_ink else "black")
    return Image.alpha_composite(ground, image).convert("RGB")


def _sized(
    trained: Trained, path: Path, pixels: UInt8[np.ndarray, "height width channel"], fit: bool
) -> UInt8[np.ndarray, "padded_height padded_width channel"]:
    native, padded = (tuple(trained.dataset[name]) for name in ("native_shape", "image_shape"))
    if fit and native[-1] == 1 and native[0] == native[1]:
        try:
            pixels = fit_digit(pixels[..., 0], native[0])[..., None]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    elif fit and pixels.shape not in (native, padded):
        image = Image.fromarray(pixels[..., 0] if native[-1] == 1 else pixels)
        resized = image.resize((native[1], native[0]), Image.Resampling.BICUBIC)
        pixels = np.asarray(resized).reshape(native)
    if pixels.shape not in (native, padded):
        raise ValueError(
            f"{path} is {pixels.shape[0]} high and {pixels.shape[1]} wide, but the network takes "
            f"{_wanted(trained)}; --fit brings it to that size"
        )
    return _pad(pixels[None], padded)[0]


def _pad(
    images: UInt8[np.ndarray, "image height width channel"], shape: tuple[int, ...]
) -> UInt8[np.ndarray, "image padded_height padded_width channel"]:
    return images if images.shape[1:] == shape else data.pad(images, min(shape[:2]))


def _wanted(trained: Trained) -> str:
    shapes = (trained.dataset["native_shape"], trained.dataset["image_shape"])
    return " or ".join(dict.fromkeys(_by(shape[:2]) for shape in shapes))


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _name(picture: Picture) -> str:
    return picture.file if picture.index is None else f"{picture.file}[{picture.index}]"


def main(argv: Sequence[str]) -> None:
    """Prints the class and the probability of every image named on the command line."""
    values = flags.FLAGS
    try:
        if not values.workdir:
            raise ValueError("--workdir is missing: name the folder of a trained run")
        if not argv[1:]:
            raise ValueError("no images: name PNG, JPEG or IDX files, or folders of them")
        trained = checkpoints.load_trained(values.workdir, values.trial)
        pictures = read_pictures(trained, argv[1:], invert=values.invert, fit=values.fit)
        labels, probabilities = classify(trained, np.stack([image.pixels for image in pictures]))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    if advice := hint(pictures, values.invert):
        print(advice, file=sys.stderr)
    show = json_lines if values.json else table
    print(show(pictures, trained.dataset["class_names"], labels, probabilities))


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a trained run.")
    flags.DEFINE_string("trial", None, "The id of the trial whose model to use; default the first.")
    flags.DEFINE_bool("json", False, "Print a JSON object a line and image.")
    flags.DEFINE_bool("invert", False, "Turn dark digits on a light ground into light on dark.")
    flags.DEFINE_bool("fit", False, "Crop, scale and centre images of any size, as MNIST's were.")
    app.call_after_init(lambda: logging.set_verbosity(logging.WARNING))
    app.run(main)
