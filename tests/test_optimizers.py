import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lenet.optimizers import OPTIMIZERS, SCHEDULES, Hyperparameters

RATE, MOMENTUM, DECAY = 0.1, 0.8, 0.05


def sgd(params, gradient, memory):
    return params - RATE * (gradient + DECAY * params)


def momentum(params, gradient, memory):
    """Sutskever et al. 2013 in the form that PyTorch and Caffe use."""
    memory["velocity"] = MOMENTUM * memory.get("velocity", 0) + gradient + DECAY * params
    return params - RATE * memory["velocity"]


def adam_update(gradient, memory):
    """Kingma and Ba 2015, algorithm 1."""
    memory["t"] = t = memory.get("t", 0) + 1
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * gradient
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * gradient**2
    return (memory["m"] / (1 - 0.9**t)) / (np.sqrt(memory["v"] / (1 - 0.999**t)) + 1e-8)


def adam(params, gradient, memory):
    return params - RATE * adam_update(gradient + DECAY * params, memory)


def adamw(params, gradient, memory):
    return params - RATE * (adam_update(gradient, memory) + DECAY * params)


REFERENCES = {"sgd": sgd, "momentum": momentum, "adam": adam, "adamw": adamw}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_follows_its_published_rule(name):
    numbers = Hyperparameters(RATE, MOMENTUM, DECAY)
    expected = np.array([1.0, -2.0, 0.5])
    params, memory = jnp.asarray(expected), {}
    state = OPTIMIZERS[name](RATE, numbers).init(params)
    for step in range(5):
        slope = np.array([1.0, 0.3, -2.0]) * (step + 1)
        gradient = np.sin(expected) * slope
        found = jnp.sin(params) * slope
        updates, state = OPTIMIZERS[name](RATE, numbers).update(found, state, params)
        params = params + updates
        expected = REFERENCES[name](expected, gradient, memory)
        np.testing.assert_allclose(params, expected, rtol=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_numbers_of_an_optimizer_are_traced(name):
    params, gradient = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.4])
    state = OPTIMIZERS[name](0.0, Hyperparameters()).init(params)

    @jax.jit
    def update(numbers):
        transform = OPTIMIZERS[name](numbers.learning_rate, numbers)
        return transform.update(gradient, state, params)[0]

    for numbers in (Hyperparameters(0.1, 0.5, 0.0), Hyperparameters(0.3, 0.9, 0.1)):
        baked = OPTIMIZERS[name](numbers.learning_rate, numbers).update(gradient, state, params)[0]
        np.testing.assert_allclose(update(numbers), baked, rtol=1e-6)
    assert update._cache_size() == 1


@pytest.mark.parametrize(
    ("name", "at_0", "at_half", "at_1"),
    [
        ("constant", 1, 1, 1),
        ("linear", 1, 0.5, 0),
        ("cosine", 1, 0.5, 0),
        ("warmup_cosine", 0, 0.5 * (1 + np.cos(np.pi * 4 / 9)), 0),
    ],
)
def test_schedules_start_and_end_where_they_say(name, at_0, at_half, at_1):
    found = [SCHEDULES[name](jnp.float32(progress)) for progress in (0, 0.5, 1)]
    np.testing.assert_allclose(found, [at_0, at_half, at_1], atol=1e-6)


def test_every_schedule_is_tested():
    assert set(SCHEDULES) == {"constant", "linear", "cosine", "warmup_cosine"}


def test_warmup_reaches_the_full_rate_after_a_tenth():
    assert SCHEDULES["warmup_cosine"](jnp.float32(0.1)) == pytest.approx(1)
