"""Images distorted as those of training were: figure 7 of the paper, with the run's ranges."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from lenet import data, distortions, figures
from lenet.distortions import Distortion
from lenet.presentations import COPIES_1998, DISTORTION, stream_key
from lenet.templates.document import Notice, Plot, Section, Text, plot
from lenet.templates.run import Fields, Run, plural

VERSIONS = 5
MAX_IMAGES = 10
RANGES = ("translation", "scaling", "squeezing", "shear")
# How often an image is distorted anew, by augmentation.
KINDS = {
    "distortions": "Drawn anew at every presentation.",
    "distortions_1998": (
        f"Drawn once: {COPIES_1998} versions of each training image, the first the original."
    ),
}


def section(
    run: Run, images: UInt8[np.ndarray, "test height width channel"] | str
) -> Section | None:
    """Some images distorted as the training images were, for each setting; None if none were.

    Args:
        run: the run.
        images: the test images, or the reason why there are none.
    """
    settings: dict[tuple[Any, ...], tuple[Fields, list[str]]] = {}
    for name, label in run.labels.items():
        fields = run.fields_of(name)
        if fields.get("augmentation", "none") != "none":
            setting = {field: fields[field] for field in ("augmentation", *RANGES)}
            settings.setdefault(tuple(setting.values()), (setting, []))[1].append(label)
    if not settings:
        return None
    title = "Distorted digits"
    if isinstance(images, str):
        return Section(title, (Notice(f"**The distorted digits are not drawn.** {images}"),))
    drawn = tuple(
        _distorted(run, images, setting, labels, "" if len(settings) == 1 else f"_{index}")
        for index, (setting, labels) in enumerate(settings.values())
    )
    text = (
        "Training images are distorted at random before the network sees them, as in figure 7 of "
        "the paper, which does not give its ranges. Test images are left as they are; these few "
        "are distorted for show. Every number of a distortion is uniform within its range."
    )
    return Section(title, (Text(text), *drawn))


def distorted_versions(
    images: UInt8[np.ndarray, "images height width channel"], ranges: Distortion, versions: int
) -> UInt8[np.ndarray, "versions images height width channel"]:
    """Images distorted as in training, each several times."""
    keys = jax.random.split(stream_key(0, DISTORTION, 0), versions * len(images))
    pixels = jnp.tile(jnp.asarray(images, jnp.float32), (versions, 1, 1, 1))
    distort = jax.vmap(lambda key, image: distortions.apply(image, distortions.draw(key, ranges)))
    found = np.asarray(jax.jit(distort)(keys, pixels))
    return np.rint(found).clip(0, 255).astype(np.uint8).reshape(versions, *images.shape)


def _distorted(
    run: Run,
    images: UInt8[np.ndarray, "test height width channel"],
    setting: Fields,
    labels: Sequence[str],
    suffix: str,
) -> Plot:
    translation, scaling, squeezing, shear = (float(setting[field]) for field in RANGES)
    names = run.dataset["class_names"]
    first = [int(np.argmax(run.test_labels == label)) for label in np.unique(run.test_labels)]
    chosen = np.array(first[:MAX_IMAGES])
    originals = data.pad(images[chosen], min(run.dataset["image_shape"][:2]))
    versions = distorted_versions(
        originals, Distortion(translation, translation, scaling, squeezing, shear), VERSIONS
    )
    title = f"{plural(len(chosen), 'image')}, and {VERSIONS} distortions of each as in training"
    caption = (
        f"Translated by up to {translation:g} pixels along each axis, enlarged or reduced by up "
        f"to a factor of {math.exp(scaling):.2f}, squeezed by up to {math.exp(squeezing):.2f} (one "
        "axis by the factor, the other by its inverse), sheared by up to "
        f"{shear:g} pixels sideways for each pixel up or down."
    )
    if setting["augmentation"] in KINDS:
        caption += f" {KINDS[setting['augmentation']]}"
    if len(run.labels) > 1:
        caption = f"{'; '.join(labels)}. {caption}"
    return plot(
        f"distorted{suffix}",
        figures.distorted(
            originals, versions, [names[run.test_labels[index]] for index in chosen], title=title
        ),
        f"Rows of images. {title}.",
        caption,
        paper=images.shape[-1] == 1,
    )
