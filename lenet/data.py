"""Which images, from where, verified, normalised, split.

`load` gives a `Dataset` of uint8 arrays, the same ones whichever source serves them; `split` and
`pad` shape it; `normalization` and `normalize` bring pixels into the range a network sees.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float32, Int32, Real, UInt8
from ml_collections import ConfigDict

from lenet import formats, sources
from lenet.files import write_atomically
from lenet.formats import ImageSet, one_line

log = logging.getLogger(__name__)

# Of the uncompressed IDX files, in the order of `formats.IDX_FILES`.
IDX_SHA256 = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion_mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "mnist_5k": (
        "c19d6b72364fe159b01b1ce511c42948ccb91dd7596ec4901537481a76b92f31",
        "b16c22d78d8d13216948ab45edbe0591249eb6979ed9ce2eb9fd46c738a090a8",
        "d6fe0d56b526016df37ec3734a23eeb705cf9f12f9a34ac116af338d3bd79ba7",
        "a8b314af35e61e7f39a92a08f0af0dd42d6f65b09562d49fc01fd459fbcf3e48",
    ),
}
SUBSETS = {"mnist": "mnist_5k"}


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, and where they came from.

    Attributes:
        name: what the images are, which need not be what was asked for: see `load`.
        source: where they came from, in a few words.
        sha256: the `formats.fingerprint` of the whole set as it was loaded; `split` keeps it.
        class_names: a name for each class, in the order of the labels.
    """

    name: str
    source: str
    sha256: str
    class_names: tuple[str, ...]
    train_images: UInt8[np.ndarray, "train height width channel"]
    train_labels: Int32[np.ndarray, "train"]
    validation_images: UInt8[np.ndarray, "validation height width channel"]
    validation_labels: Int32[np.ndarray, "validation"]
    test_images: UInt8[np.ndarray, "test height width channel"]
    test_labels: Int32[np.ndarray, "test"]

    @property
    def num_classes(self) -> int:
        """The number of classes, of which some may have no image."""
        return len(self.class_names)


def load(name: str, data_dir: str | None = None, *, allow_subset: bool = False) -> Dataset:
    """Loads an image set at its native size, verified, with an empty validation split.

    With `data_dir` the images come from there and nowhere else: from a folder of IDX files, an
    `.npz`, a folder that TFDS prepared, or a TFDS data folder that has `name` in it. Otherwise they
    come from the cache (`LENET_CACHE_DIR`, or `lenet` in `XDG_CACHE_HOME` or `~/.cache`), or else
    from the first of `sources.SOURCES[name]` that has them, and are cached.

    The images in `data_dir` are called `name` only where that is true. They have a known set's name
    if their sha256 says that they are that set (`IDX_SHA256`), or if TFDS prepared them under that
    name and no sha256 is on record. Else a `name` that is no known set's is taken at its word, and
    for one that is, the name of the file or folder is used, after `custom_` if need be.

    Args:
        name: one of `sources.SOURCES`; with `data_dir`, any name.
        data_dir: a file or folder that holds the images.
        allow_subset: whether 5,000 images of MNIST (`mnist_5k`) may stand in where the whole of it
            cannot be had. A warning, and the name of the result, then say so.

    Raises:
        ValueError: the name is unknown, or `data_dir` holds no valid set.
        FileNotFoundError: `data_dir` does not exist or lacks a file.
        ConnectionError: no source has the images; the message says of each why.
    """
    if data_dir:
        return _from_data_dir(name, Path(data_dir).expanduser())
    if name not in sources.SOURCES:
        raise ValueError(
            f"dataset {name!r} is unknown; choose one of {', '.join(sorted(sources.SOURCES))}, or "
            "give data_dir: a folder of IDX files, an .npz or a TFDS folder"
        )
    subsets = [SUBSETS[name]] if name in SUBSETS else []
    failures = []
    for served in (name, *subsets) if allow_subset else (name,):
        try:
            dataset = _from_sources(served)
        except ConnectionError as error:
            failures.append(str(error))
            continue
        if served != name:
            dataset = dataclasses.replace(dataset, source=f"{dataset.source}, in place of {name}")
            log.warning(
                "%s. THE DATA SET IS %s INSTEAD: %d training and %d test images. Its results are "
                "no results on %s.",
                "; ".join(failures),
                served,
                len(dataset.train_labels),
                len(dataset.test_labels),
                name,
            )
        return dataset
    instead = "" if allow_subset else "".join(f", or allow_subset for {x}" for x in subsets)
    raise ConnectionError(
        f"{'; '.join(failures)}; give data_dir (a folder of IDX files, an .npz or a TFDS folder)"
        f"{instead}"
    )


def _from_data_dir(name: str, path: Path) -> Dataset:
    claimed, source = "", f"data_dir {path}"
    if not path.exists():
        raise FileNotFoundError(f"data_dir={path} does not exist")
    if path.is_file():
        if path.suffix != ".npz":
            raise ValueError(f"data_dir={path} is a file; it must be a folder or an .npz")
        images, _ = formats.read_npz(path)
    elif prepared := sources.find_tfds(path, name):
        images, claimed = sources.read_tfds(prepared)
    elif any(path.iterdir()):
        images = formats.read_idx_folder(path)
    else:
        raise FileNotFoundError(
            f"data_dir={path} is empty; it must hold {', '.join(formats.IDX_FILES)} (or .gz), or "
            "what TFDS prepared"
        )
    digests = formats.idx_digests(images)
    own_name = claimed or path.resolve().stem
    actual_name = _name(name, claimed, own_name, digests)
    if actual_name != name and name in sources.SOURCES:
        log.warning("data_dir=%s holds no verified %s: it is %s", path, name, actual_name)
    if actual_name in sources.CLASS_NAMES:
        images = dataclasses.replace(images, class_names=sources.CLASS_NAMES[actual_name])
    return _dataset(actual_name, source, images, digests)


def _name(asked: str, claimed: str, own_name: str, digests: Sequence[str]) -> str:
    for known, known_digests in IDX_SHA256.items():
        if tuple(digests) == known_digests:
            return known
    if claimed and claimed not in IDX_SHA256:
        return claimed
    if asked not in sources.SOURCES:
        return asked
    return f"custom_{own_name}" if own_name in sources.SOURCES else own_name


def _from_sources(name: str) -> Dataset:
    started = time.monotonic()
    cache = cache_folder() / f"{name}.npz"
    failures = []
    if cache.exists():
        try:
            dataset = _read_cache(name, cache)
            log.info("%s: read from %s in %.2f s", name, cache, time.monotonic() - started)
            return dataset
        except (OSError, ValueError) as error:
            log.warning("%s: the cache is set aside: %s", name, one_line(error))
            failures.append(f"cache: {one_line(error)}")
    for source, read in sources.SOURCES[name].items():
        try:
            images = read(name)
            digests = formats.idx_digests(images)
            _verify(name, digests)
        except (OSError, ValueError, ImportError) as error:
            log.info("%s: not from %s: %s", name, source, one_line(error))
            failures.append(f"{source}: {one_line(error)}")
            continue
        log.info("%s: from %s in %.2f s", name, source, time.monotonic() - started)
        dataset = _dataset(name, source, images, digests)
        _write_cache(dataset, cache)
        return dataset
    raise ConnectionError(f"{name} cannot be loaded ({'; '.join(failures)})")


def _verify(name: str, digests: Sequence[str]) -> None:
    expected = IDX_SHA256.get(name, digests)
    for file, digest, wanted in zip(formats.IDX_FILES, digests, expected, strict=True):
        if digest != wanted:
            raise ValueError(f"its {file} has the sha256 {digest[:16]}..., not {wanted[:16]}...")


def _dataset(name: str, source: str, images: ImageSet, digests: Sequence[str]) -> Dataset:
    return Dataset(
        name=name,
        source=source,
        sha256=formats.fingerprint(digests),
        class_names=images.class_names,
        train_images=images.train_images,
        train_labels=images.train_labels,
        validation_images=images.train_images[:0],
        validation_labels=images.train_labels[:0],
        test_images=images.test_images,
        test_labels=images.test_labels,
    )


def load_test_images(
    config: Mapping[str, Any] | ConfigDict, described: Mapping[str, Any]
) -> UInt8[np.ndarray, "test height width channel"] | str:
    """The test images of a run, without padding, or a sentence that says why there are none.

    Args:
        config: of the run; a field that its config did not have yet means its default.
        described: the data set that it used, as `dataset.json` has it.
    """
    try:
        whole = load(
            config.get("dataset") or described["name"],
            config.get("data_dir") or None,
            allow_subset=bool(config.get("allow_subset")),
        )
        loaded = hold_out(whole, config.get("holdout") or 0)
    except (OSError, ValueError) as error:
        return f"The data set could not be loaded again: {error}."
    if loaded.sha256 != described["sha256"]:
        return (
            f"What is loaded for {described['name']} now is not what the run used: its sha256 is "
            f"{loaded.sha256[:16]}, not {described['sha256'][:16]}."
        )
    return loaded.test_images


def cache_folder() -> Path:
    """Where loaded sets are kept: `LENET_CACHE_DIR`, else `lenet` in the user's cache folder."""
    own = os.environ.get("LENET_CACHE_DIR")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lenet"


def _read_cache(name: str, cache: Path) -> Dataset:
    images, texts = formats.read_npz(cache)
    digests = formats.idx_digests(images)
    if texts.get("sha256") != formats.fingerprint(digests):
        raise ValueError(f"{cache} is corrupted: its images are not those that were written")
    _verify(name, digests)
    return _dataset(name, texts.get("source", "cache"), images, digests)


def _write_cache(dataset: Dataset, cache: Path) -> None:
    """Writes beside the cache and moves it there in one step, so that no one reads half of it."""
    try:
        write_atomically(
            cache,
            lambda file: np.savez(
                file,
                source=dataset.source,
                sha256=dataset.sha256,
                class_names=dataset.class_names,
                **{array: getattr(dataset, array) for array in formats.ARRAYS},
            ),
        )
    except OSError as error:
        log.warning("%s: not cached in %s: %s", dataset.name, cache, one_line(error))


def split(dataset: Dataset, train_examples: int = 0, validation_examples: int = 0) -> Dataset:
    """Takes validation images from the end of the training set, training images from its start.

    Args:
        dataset: a set without validation split.
        train_examples: how many of the others to train on, from the first; 0 for all.
        validation_examples: how many of the last training images to hold out.

    Raises:
        ValueError: there are not as many training images, or the set is split already.
    """
    examples = len(dataset.train_labels)
    if len(dataset.validation_labels):
        raise ValueError(f"{dataset.name} has a validation split already")
    if not 0 <= validation_examples < examples:
        raise ValueError(
            f"validation_examples={validation_examples} is out of range; {dataset.name} has "
            f"{examples} training images, of which 0 to {examples - 1} can be held out"
        )
    rest = examples - validation_examples
    if not 0 <= train_examples <= rest:
        raise ValueError(
            f"train_examples={train_examples} is out of range; {dataset.name} leaves {rest} "
            f"training images beside {validation_examples} for validation (0 takes all)"
        )
    kept = train_examples or rest
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:kept],
        train_labels=dataset.train_labels[:kept],
        validation_images=dataset.train_images[rest:],
        validation_labels=dataset.train_labels[rest:],
    )


def hold_out(dataset: Dataset, count: int) -> Dataset:
    """The set with its last `count` training images in the place of its test images.

    For choices that must not see the test images. 0 leaves the set as it is.

    Raises:
        ValueError: there are not so many training images.
    """
    if not count:
        return dataset
    kept = len(dataset.train_labels) - count
    if kept < 1:
        raise ValueError(
            f"holdout={count} leaves none of the {len(dataset.train_labels)} training images"
        )
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}_holdout",
        train_images=dataset.train_images[:kept],
        train_labels=dataset.train_labels[:kept],
        test_images=dataset.train_images[kept:],
        test_labels=dataset.train_labels[kept:],
    )


def pad(
    images: UInt8[np.ndarray, "image height width channel"], size: int = 32
) -> UInt8[np.ndarray, "image padded_height padded_width channel"]:
    """Surrounds raw images with zeros up to `size` x `size`, evenly; never resizes or crops.

    Where the difference is odd, the extra row or column is at the bottom or right. A side of `size`
    or more is left as it is.
    """
    margins = [max(0, size - side) for side in images.shape[1:3]]
    if not any(margins):
        return images
    height, width = ((margin // 2, margin - margin // 2) for margin in margins)
    return np.pad(images, ((0, 0), height, width, (0, 0)))


@dataclasses.dataclass(frozen=True)
class Affine:
    """What `normalize` does to a uint8 pixel x of channel c: `scale[c] * x + offset[c]`."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]


def _unit(train_images: np.ndarray) -> Affine:
    channels = train_images.shape[-1]
    return Affine((1 / 255,) * channels, (0.0,) * channels)


def _lecun(train_images: np.ndarray) -> Affine:
    channels = train_images.shape[-1]
    return Affine((1.275 / 255,) * channels, (-0.1,) * channels)


def _standard(train_images: np.ndarray) -> Affine:
    pixels = np.arange(256)
    scale, offset = [], []
    for channel in range(train_images.shape[-1]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(train_images), 4096):  # bincount makes 8 bytes of each
            chunk = train_images[start : start + 4096, ..., channel]
            counts += np.bincount(chunk.reshape(-1), minlength=256)
        mean = float(counts @ pixels / counts.sum())
        deviation = float(counts @ (pixels - mean) ** 2 / counts.sum()) ** 0.5
        if deviation == 0:
            raise ValueError(
                f"normalization='standard' is undefined: channel {channel} of the training images "
                f"is {mean:g} everywhere; choose unit or lecun"
            )
        scale.append(1 / deviation)
        offset.append(-mean / deviation)
    return Affine(tuple(scale), tuple(offset))


NORMALIZATIONS: dict[str, Callable[[np.ndarray], Affine]] = {
    "unit": _unit,  # 0 to 1
    "lecun": _lecun,  # -0.1 (background) to 1.175 (ink)
    "standard": _standard,  # mean 0, deviation 1
}


def normalization(
    name: str, train_images: UInt8[np.ndarray, "train height width channel"]
) -> Affine:
    """The map of `NORMALIZATIONS` called `name`, one scale and offset a channel.

    Args:
        name: `unit` (0 to 1), `lecun` (-0.1 to 1.175, as in the paper's section II.B), or
            `standard` (each channel with mean 0 and deviation 1 over `train_images`).
        train_images: the training images, not padded.

    Raises:
        ValueError: the name is unknown, or `standard` meets a channel without variation.
    """
    if name not in NORMALIZATIONS:
        raise ValueError(
            f"normalization={name!r} is unknown; choose one of {', '.join(sorted(NORMALIZATIONS))}"
        )
    return NORMALIZATIONS[name](train_images)


def normalize(
    images: Real[np.ndarray | Array, "*batch height width channel"], affine: Affine
) -> Float32[np.ndarray | Array, "*batch height width channel"]:
    """Applies `affine` to pixels from 0 to 255; NumPy arrays stay NumPy, and it can be jitted.

    Raises:
        ValueError: `affine` is for another number of channels.
    """
    channels = images.shape[-1]
    if channels != len(affine.scale):
        raise ValueError(f"images have {channels} channels, the map has {len(affine.scale)}")
    shape = (1,) * (images.ndim - 1) + (channels,)
    scale, offset = (np.array(x, np.float32).reshape(shape) for x in (affine.scale, affine.offset))
    return images.astype(np.float32) * scale + offset
