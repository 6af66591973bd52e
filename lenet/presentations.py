"""Which image is presented when, and how it looks then: every random stream of a training."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lenet import data as datasets
from lenet import distortions
from lenet.distortions import Distortion
from lenet.registry import lookup

# Streams of randomness: each is fold_in(fold_in(key(seed), stream), counter).
INIT, ORDER, CURVATURE, DISTORTION, DROPOUT = 0, 1, 2, 3, 4

# The paper's training set with distortions: 60,000 originals, and nine times as many distorted.
COPIES_1998 = 10


class Images(flax.struct.PyTreeNode):
    """Every image of a data set on the device: training, then validation, then test.

    Attributes:
        pixels: UInt8[Array, "example height width channel"].
        labels: Int[Array, "example"].
    """

    pixels: Any
    labels: Any


def stream_key(
    seed: int | Int[Array, ""], stream: int, counter: int | Int[Array, ""]
) -> Key[Array, ""]:
    """The key of one event of one random stream; nothing is carried from event to event."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), counter)


def normalized(
    images: Images, chosen: Int[Array, "batch"], affine: datasets.Affine
) -> Float[Array, "batch height width channel"]:
    """Images as they are."""
    return jnp.asarray(datasets.normalize(images.pixels[chosen], affine))


def present(
    images: Images,
    chosen: Int[Array, "batch"],
    affine: datasets.Affine,
    augmentation: str,
    seed: Int[Array, ""],
    step: Int[Array, ""],
    ranges: Distortion,
) -> Float[Array, "batch height width channel"]:
    """Images as the network is trained on them.

    Args:
        images: all there are.
        chosen: which to present.
        affine: their normalisation.
        augmentation: a name in `AUGMENTATIONS`.
        seed: the member's.
        step: of the whole training.
        ranges: what distortions are drawn from.
    """
    draw = lookup(AUGMENTATIONS, augmentation, "augmentation")
    if draw is None:
        return normalized(images, chosen, affine)
    places = jnp.arange(len(chosen))
    keys = jax.vmap(lambda place: jax.random.fold_in(stream_key(seed, DISTORTION, step), place))
    drawn = jax.vmap(lambda key, example: draw(key, example, ranges))(keys(places), chosen)
    pixels = images.pixels[chosen].astype(jnp.float32)
    return jnp.asarray(datasets.normalize(jax.vmap(distortions.apply)(pixels, drawn), affine))


def _fresh(key: Key[Array, ""], example: Int[Array, ""], ranges: Distortion) -> Distortion:
    """Another distortion at every presentation."""
    return distortions.draw(key, ranges)


def _fixed(key: Key[Array, ""], example: Int[Array, ""], ranges: Distortion) -> Distortion:
    """One of the example's COPIES_1998, the same in every run; the first is the original."""
    copy = jax.random.randint(key, (), 0, COPIES_1998)
    pattern = stream_key(0, DISTORTION, example * COPIES_1998 + copy)
    drawn = distortions.draw(pattern, ranges)
    return jax.tree.map(lambda number: jnp.where(copy == 0, 0.0, number), drawn)


# name -> function of (key of the presentation, example, ranges); None for the images as they are.
AUGMENTATIONS: dict[str, Callable[..., Distortion] | None] = {
    "none": None,
    "distortions": _fresh,
    "distortions_1998": _fixed,
}
