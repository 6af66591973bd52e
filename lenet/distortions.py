"""Random planar distortions of images, as the paper trained with (section III.A).

Translation, scaling, squeezing (one axis compressed, the other stretched) and horizontal shear. A
pixel of the result is the bilinear interpolation of the original at the place it came from. That
place's row depends on the pixel's row alone, so that it takes two small matrix products, without
gathers: fast on CPU and GPU, inside a loop and under `vmap`.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


class Distortion(flax.struct.PyTreeNode):
    """One distortion about the image's centre, or the ranges to draw one from.

    The point (x, y) of the original goes to (s q (x + k y) + t_x, s / q y + t_y).

    Attributes:
        right: t_x, in pixels.
        down: t_y, in pixels.
        scaling: log s.
        squeezing: log q.
        shear: k.
    """

    right: Any
    down: Any
    scaling: Any
    squeezing: Any
    shear: Any


def draw(key: Key[Array, ""], ranges: Distortion) -> Distortion:
    """A distortion, each of its numbers uniform between minus and plus its range."""
    names = list(Distortion.__dataclass_fields__)
    drawn = jax.random.uniform(key, (len(names),), minval=-1.0, maxval=1.0)
    return Distortion(
        **{name: drawn[index] * getattr(ranges, name) for index, name in enumerate(names)}
    )


def apply(
    image: Float[Array, "height width channel"], distortion: Distortion
) -> Float[Array, "height width channel"]:
    """The distorted image; what comes from outside of the original is 0."""
    height, width, _ = image.shape
    x = jnp.arange(width) - (width - 1) / 2
    y = jnp.arange(height) - (height - 1) / 2
    from_y = (y - distortion.down) * jnp.exp(distortion.squeezing - distortion.scaling)
    stretched = (x - distortion.right) * jnp.exp(-distortion.squeezing - distortion.scaling)
    from_x = stretched[None, :] - distortion.shear * from_y[:, None]
    rows = _hat(from_y[:, None] - y[None, :])
    columns = _hat(from_x[:, :, None] - x[None, None, :])
    blended = jnp.einsum("ri,ijc->rjc", rows, image)
    return jnp.einsum("rsj,rjc->rsc", columns, blended)


def _hat(distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The weight of a pixel at a distance: 1 at 0, falling to 0 at 1."""
    return jnp.maximum(1 - jnp.abs(distance), 0)
