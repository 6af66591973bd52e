import jax
import jax.numpy as jnp
import numpy as np
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
