import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lenet import data, presentations
from lenet.distortions import Distortion

AFFINE = data.Affine((1 / 255,), (-0.1,))
RANGES = Distortion(2.0, 2.0, 0.15, 0.15, 0.3)
CHOSEN = jnp.array([3, 1, 3, 0])


@pytest.fixture(scope="module")
def images(digits):
    pixels, labels = digits.train_images[:5], digits.train_labels[:5].astype(np.int32)
    return presentations.Images(jnp.asarray(data.pad(pixels)), jnp.asarray(labels))


@functools.partial(jax.jit, static_argnames="augmentation")
def present(images, augmentation, seed=0, step=0, chosen=CHOSEN, ranges=RANGES):
    numbers = (jnp.int32(seed), jnp.int32(step))
    return presentations.present(images, chosen, AFFINE, augmentation, *numbers, ranges)


def test_without_augmentation_images_are_what_they_are(images):
    expected = np.asarray(images.pixels)[np.asarray(CHOSEN)] / 255 - 0.1
    np.testing.assert_allclose(present(images, "none"), expected, atol=1e-6)


def test_distortions_keep_the_background(images):
    shown = np.asarray(present(images, "distortions"))
    assert shown.min() == pytest.approx(-0.1)
    np.testing.assert_allclose(shown[:, 0, 0], -0.1, atol=1e-6)


def test_every_presentation_is_distorted_anew(images):
    first = np.asarray(present(images, "distortions"))
    plain = np.asarray(present(images, "none"))
    assert (np.abs(first - plain).max(axis=(1, 2, 3)) > 0.1).all()
    assert np.abs(first[0] - first[2]).max() > 0.1  # The same example, twice in a batch.
    assert np.abs(first - present(images, "distortions", step=1)).max() > 0.1
    assert np.abs(first - present(images, "distortions", seed=1)).max() > 0.1
    np.testing.assert_array_equal(first, present(images, "distortions"))


def test_without_ranges_nothing_is_distorted(images):
    still = jax.tree.map(jnp.zeros_like, RANGES)
    shown = present(images, "distortions", ranges=jax.tree.map(float, still))
    np.testing.assert_allclose(shown, present(images, "none"), atol=1e-5)


def test_the_fixed_set_has_an_original_and_nine_distorted_of_each_example(images):
    chosen = jnp.full(100, 3)
    seen = [
        np.asarray(present(images, "distortions_1998", seed, step, chosen)).round(3)
        for seed in (0, 1)
        for step in (0, 1)
    ]
    patterns = {shown.tobytes() for batch in seen for shown in batch}
    assert len(patterns) == presentations.COPIES_1998 == 10
    original = np.asarray(present(images, "none", chosen=chosen[:1])).round(3)[0]
    assert original.tobytes() in patterns


def test_an_unknown_augmentation_is_named(images):
    with pytest.raises(ValueError, match="augmentation='mixup' is not known; choose one of: none"):
        present(images, "mixup")
