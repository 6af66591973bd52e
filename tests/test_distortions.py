import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from lenet import distortions
from lenet.distortions import Distortion

NONE = Distortion(0.0, 0.0, 0.0, 0.0, 0.0)
RANGES = Distortion(3.0, 2.0, 0.3, 0.2, 0.5)


def image(shape=(12, 9, 2)):
    return jax.random.uniform(jax.random.key(0), shape)


def by_scipy(pixels, d):
    """The same through scipy's general affine map, which takes output points to input points."""
    height, width, _ = pixels.shape
    a, b = np.exp(d.scaling + d.squeezing), np.exp(d.scaling - d.squeezing)
    forward = np.array([[b, 0.0], [a * d.shear, a]])  # of (y, x)
    inverse = np.linalg.inv(forward)
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = centre - inverse @ (centre + np.array([d.down, d.right]))
    padded = np.pad(np.asarray(pixels), ((20, 20), (20, 20), (0, 0)))
    shift = 20 - inverse @ np.array([20.0, 20.0])
    channels = [
        scipy.ndimage.affine_transform(padded[:, :, c], inverse, offset + shift, order=1)
        for c in range(padded.shape[2])
    ]
    return np.stack(channels, axis=-1)[20:-20, 20:-20]


def test_nothing_is_nothing():
    np.testing.assert_allclose(distortions.apply(image(), NONE), image(), atol=1e-6)


@pytest.mark.parametrize(
    "changed",
    [
        {"right": 1.3},
        {"down": -2.25},
        {"scaling": 0.3},
        {"scaling": -0.4},
        {"squeezing": 0.25},
        {"shear": 0.5},
        {"right": -0.7, "down": 1.1, "scaling": 0.2, "squeezing": -0.15, "shear": -0.4},
    ],
    ids=str,
)
def test_it_is_bilinear_interpolation_as_scipy_does_it(changed):
    distortion = NONE.replace(**changed)
    found = distortions.apply(image(), distortion)
    np.testing.assert_allclose(found, by_scipy(image(), distortion), atol=1e-5)


def test_a_whole_pixel_moves_right_and_down():
    dot = jnp.zeros((7, 7, 1)).at[2, 3, 0].set(1.0)
    moved = distortions.apply(dot, NONE.replace(right=2.0, down=1.0))
    assert np.argwhere(np.asarray(moved) > 0.5).tolist() == [[3, 5, 0]]


def test_scaling_enlarges_and_squeezing_keeps_the_area():
    block = jnp.zeros((33, 33, 1)).at[12:21, 12:21, 0].set(1.0)
    grown = distortions.apply(block, NONE.replace(scaling=jnp.log(1.5)))
    assert grown.sum() == pytest.approx(81 * 1.5**2, rel=0.05)
    squeezed = np.asarray(distortions.apply(block, NONE.replace(squeezing=jnp.log(1.5))))
    assert squeezed.sum() == pytest.approx(81, rel=0.05)
    assert (squeezed[:, 16, 0] > 0.5).sum() < 9 < (squeezed[16, :, 0] > 0.5).sum()


def test_what_is_drawn_fills_its_ranges_and_no_more():
    keys = jax.random.split(jax.random.key(1), 2000)
    drawn = jax.vmap(lambda key: distortions.draw(key, RANGES))(keys)
    for name in Distortion.__dataclass_fields__:
        values, limit = np.asarray(getattr(drawn, name)), getattr(RANGES, name)
        assert np.abs(values).max() == pytest.approx(limit, rel=0.01)
        assert np.abs(values).max() <= limit
        # A uniform number in +-b has deviation b / sqrt(3).
        assert values.std() == pytest.approx(limit / 3**0.5, rel=0.05)
    assert abs(np.corrcoef(drawn.right, drawn.down)[0, 1]) < 0.1


def test_mapped_over_images_it_is_the_same():
    keys = jax.random.split(jax.random.key(1), 4)
    several = jax.random.uniform(jax.random.key(2), (4, 12, 9, 1))

    def one(pixels, key):
        return distortions.apply(pixels, distortions.draw(key, RANGES))

    mapped = jax.vmap(one)(several, keys)
    for index in range(4):
        np.testing.assert_allclose(mapped[index], one(several[index], keys[index]), atol=1e-6)
