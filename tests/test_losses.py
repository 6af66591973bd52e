import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from lenet import losses


def test_cross_entropy_is_minus_the_log_of_the_softmax():
    logits = np.random.default_rng(0).normal(size=(5, 10)).astype(np.float32)
    labels = np.array([0, 9, 3, 3, 7])
    expected = -scipy.special.log_softmax(logits, axis=1)[np.arange(5), labels]
    found = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_cross_entropy_and_its_gradient_are_finite_for_huge_logits():
    logits, labels = jnp.array([[1e4, -1e4], [-1e4, 1e4]]), jnp.array([1, 1])
    value, gradient = jax.value_and_grad(lambda x: losses.cross_entropy(x, labels).sum())(logits)
    assert value == 2e4
    np.testing.assert_array_equal(gradient, [[1, -1], [0, 0]])


def random_distances():
    rng = np.random.default_rng(1)
    return rng.uniform(1, 30, (5, 10)).astype(np.float32), np.array([0, 9, 3, 3, 7])


def test_the_loss_8_is_the_distance_to_the_right_code():
    distances, labels = random_distances()
    found = losses.rbf_mse(-jnp.asarray(distances), jnp.asarray(labels))
    np.testing.assert_allclose(found, distances[np.arange(5), labels], rtol=1e-6)


@pytest.mark.parametrize("j", [0.1, 1.0, 10.0])
def test_the_loss_9_is_the_papers(j):
    distances, labels = random_distances()
    y = distances.astype(np.float64)
    expected = y[np.arange(5), labels] + np.log(np.exp(-j) + np.exp(-y).sum(axis=1))
    found = losses.rbf_map(-jnp.asarray(distances), jnp.asarray(labels), j)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_distances_may_count_as_means_over_the_units():
    distances, labels = random_distances()
    y = distances.astype(np.float64) / 84
    right = y[np.arange(5), labels]
    outputs = -jnp.asarray(distances), jnp.asarray(labels)
    np.testing.assert_allclose(losses.rbf_mse(*outputs, 0.0, 1 / 84), right, rtol=1e-5)
    expected = right + np.log(np.exp(-0.5) + np.exp(-y).sum(axis=1))
    np.testing.assert_allclose(losses.rbf_map(*outputs, 0.5, 1 / 84), expected, rtol=1e-5)


def test_the_loss_9_tends_to_the_cross_entropy_of_minus_the_distances():
    distances, labels = (jnp.asarray(values) for values in random_distances())
    np.testing.assert_allclose(
        losses.rbf_map(-distances, labels, 1e4), losses.cross_entropy(-distances, labels), rtol=1e-6
    )


def test_the_loss_9_and_its_gradient_are_finite_where_every_code_is_far():
    outputs, labels = jnp.full((1, 10), -1e4), jnp.array([4])
    value, gradient = jax.value_and_grad(lambda y: losses.rbf_map(y, labels, 1.0).sum())(outputs)
    # exp(-y) is 0 in float32: what is left is y - j, and only the right code pulls.
    assert value == pytest.approx(1e4 - 1, rel=1e-6)
    np.testing.assert_array_equal(gradient, -np.eye(10)[[4]])
