import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lenet.optimizers import OPTIMIZERS, SCHEDULES, Hyperparameters, sdlm

RATE, MOMENTUM, DECAY, DAMPING = 0.1, 0.8, 0.05, 0.5


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


def sdlm_without_curvature(params, gradient, memory):
    return params - RATE / DAMPING * (gradient + DECAY * params)


REFERENCES = {
    "sdlm": sdlm_without_curvature,
    "sgd": sgd,
    "momentum": momentum,
    "adam": adam,
    "adamw": adamw,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_follows_its_published_rule(name):
    numbers = Hyperparameters(RATE, MOMENTUM, DECAY, DAMPING)
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
        ("passes_1998", 1, 0.1, 0.02),
    ],
)
def test_schedules_start_and_end_where_they_say(name, at_0, at_half, at_1):
    found = [SCHEDULES[name](jnp.float32(progress)) for progress in (0, 0.5, 1)]
    np.testing.assert_allclose(found, [at_0, at_half, at_1], atol=1e-6)


def test_every_schedule_is_tested():
    assert set(SCHEDULES) == {"constant", "linear", "cosine", "warmup_cosine", "passes_1998"}


def test_20_passes_have_the_rates_of_the_paper():
    # Appendix C: 5e-4 twice, 2e-4 three times, 1e-4 three times, 5e-5 four times, then 1e-5.
    paper = [5e-4] * 2 + [2e-4] * 3 + [1e-4] * 3 + [5e-5] * 4 + [1e-5] * 8
    steps = 20 * 60_000
    schedule = SCHEDULES["passes_1998"]
    for number, rate in enumerate(paper):
        first, last = number * 60_000, (number + 1) * 60_000 - 1
        for step in (first, last):
            assert 5e-4 * schedule(jnp.int32(step) / steps) == pytest.approx(rate)


def test_sdlm_divides_by_damping_and_the_curvature_last_given():
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0])}
    gradient = {"a": jnp.array([0.5, -1.0]), "b": jnp.array([2.0])}
    curvature = {"a": jnp.array([0.0, 7.0]), "b": jnp.array([0.3])}
    transform = sdlm(5e-4, damping=0.02)
    state = transform.init(params)
    first, state = transform.update(gradient, state, params, curvature=curvature)
    later, state = transform.update(gradient, state, params)
    for updates in (first, later):
        np.testing.assert_allclose(updates["a"], [-5e-4 / 0.02 * 0.5, 5e-4 / 7.02], rtol=1e-6)
        np.testing.assert_allclose(updates["b"], [-5e-4 / 0.32 * 2], rtol=1e-6)
    np.testing.assert_array_equal(state.curvature["a"], curvature["a"])


def test_sdlm_with_the_exact_curvature_of_a_bowl_reaches_its_bottom_in_one_step():
    scale, bottom = jnp.array([0.1, 10.0]), jnp.array([3.0, -2.0])
    chain = optax.chain(optax.clip_by_global_norm(1e6), sdlm(1.0, damping=0.0))
    params = jnp.zeros(2)
    gradient = jax.grad(lambda w: 0.5 * (scale * (w - bottom) ** 2).sum())(params)
    updates, _ = chain.update(gradient, chain.init(params), params, curvature=scale)
    np.testing.assert_allclose(optax.apply_updates(params, updates), bottom, rtol=1e-5)


def test_warmup_reaches_the_full_rate_after_a_tenth():
    assert SCHEDULES["warmup_cosine"](jnp.float32(0.1)) == pytest.approx(1)
