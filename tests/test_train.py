import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from lenet import layers, losses, model, optimizers
from lenet.model import LeNet
from lenet.optimizers import Hyperparameters
from lenet.train import create_train_state, eval_step, refresh_curvature, train_step

step = jax.jit(train_step)
refresh = jax.jit(refresh_curvature)
SHAPE = (16, 16, 1)


def state_of(network=None, shape=(32, 32, 1), **choices):
    return create_train_state(jax.random.key(0), network or LeNet(), shape, **choices)


def random_batch(examples=8, shape=SHAPE):
    images = jax.random.normal(jax.random.key(1), (examples, *shape))
    return {"image": images, "label": jnp.arange(examples) % 10}


def largest_difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b)))


def test_it_takes_three_lines():
    state = create_train_state(jax.random.key(0), LeNet())
    batch = random_batch(shape=(32, 32, 1))
    state, metrics = jax.jit(train_step)(state, batch, Hyperparameters())
    assert state.step == 1
    assert np.isfinite(metrics["loss"])


NETWORKS = [
    *({"activation": name} for name in layers.ACTIVATIONS),
    *({"pooling": name} for name in layers.POOLINGS),
    *({"connections": name} for name in layers.CONNECTIONS),
    *({"head": name} for name in model.HEADS),
    *({"initialization": name} for name in layers.INITIALIZATIONS),
    *({"convolution": name} for name in layers.CONVOLUTIONS),
]


@pytest.mark.parametrize("choice", NETWORKS, ids=lambda choice: "-".join(*choice.items()))
def test_every_choice_of_network_trains_every_parameter(choice):
    # Tanh, so that no unit is silent on these images.
    state = state_of(LeNet(**{"activation": "tanh", **choice}), SHAPE, optimizer="sgd")
    trained, metrics = step(state, random_batch(32), Hyperparameters(0.1))
    assert np.isfinite(metrics["loss"])
    for path, before in jax.tree_util.tree_leaves_with_path(state.params):
        after = functools.reduce(lambda tree, key: tree[key.key], path, trained.params)
        assert np.isfinite(after).all()
        assert (before != after).any(), jax.tree_util.keystr(path)


TRAININGS = [
    *({"optimizer": name} for name in optimizers.OPTIMIZERS),
    *({"schedule": name} for name in optimizers.SCHEDULES),
    *({"loss": name} for name in losses.LOSSES if name not in losses.OF_DISTANCES),
]


@pytest.mark.parametrize("choice", TRAININGS, ids=lambda choice: "-".join(*choice.items()))
def test_loss_falls_on_a_real_batch_with_every_way_of_training(choice, real_batch):
    state = state_of(total_steps=20, **choice)
    rate = {"sgd": 0.1, "momentum": 0.1, "passes_1998": 5e-3}.get(*choice.values(), 2e-3)
    numbers = Hyperparameters(rate)
    found = []
    for _ in range(20):
        state, metrics = step(state, real_batch, numbers)
        found.append(metrics["loss"] / metrics["examples"])
    assert found[0] == pytest.approx(np.log(10), rel=0.1)
    assert found[-1] < 0.7 * found[0]


@pytest.mark.parametrize("loss", losses.OF_DISTANCES)
def test_the_network_of_1998_learns_a_real_batch_with_its_losses_and_its_optimizer(
    loss, real_batch
):
    network = LeNet("scaled_tanh", "subsampling", "table1", "rbf", initialization="uniform_1998")
    state = state_of(network, optimizer="sdlm", loss=loss)
    numbers = Hyperparameters(5e-3, damping=0.5, rbf_j=10.0)
    found = []
    for number in range(20):
        if number % 5 == 0:
            before = optax.tree.get(state.opt_state, "curvature")
            state = refresh(state, real_batch, numbers)
            after = optax.tree.get(state.opt_state, "curvature")
            assert largest_difference(before, after) > 0
        state, metrics = step(state, real_batch, numbers)
        found.append(metrics["loss"] / metrics["examples"])
    # Every output of f6 is near 0 at first, 84 from every code.
    offset = 0 if loss == "rbf_mse" else -10
    assert found[0] == pytest.approx(84 + offset, abs=5)
    assert found[-1] - offset < 0.7 * (found[0] - offset)


def test_the_curvature_is_a_running_average_that_the_first_estimate_begins():
    first, second = random_batch(4), random_batch(8)
    numbers = Hyperparameters(curvature_memory=0.75)
    state = state_of(LeNet("tanh"), SHAPE, optimizer="sdlm")

    def curvature(state):
        return optax.tree.get(state.opt_state, "curvature")

    fresh = curvature(refresh(state, second, Hyperparameters()))
    begun = refresh(state, first, numbers)
    averaged = curvature(refresh(begun.replace(step=1), second, numbers))
    expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, curvature(begun), fresh)
    assert largest_difference(averaged, expected) < 1e-6
    assert largest_difference(fresh, expected) > 1e-3


def test_the_gradient_is_that_of_a_finite_difference():
    with jax.enable_x64(True):
        state = state_of(LeNet(activation="tanh", pooling="average"), SHAPE, optimizer="sgd")
        state = jax.tree.map(
            lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, state
        )
        batch = random_batch()
        batch["image"] = batch["image"].astype(jnp.float64)

        def loss(params):
            metrics = step(state.replace(params=params), batch, Hyperparameters(0.0))[1]
            return float(metrics["loss"] / metrics["examples"])

        trained, _ = step(state, batch, Hyperparameters(1.0))
        gradient = jax.tree.map(lambda before, after: before - after, state.params, trained.params)
        keys = iter(jax.random.split(jax.random.key(2), 100))
        direction = jax.tree.map(
            lambda leaf: jax.random.normal(next(keys), leaf.shape, leaf.dtype), state.params
        )
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
        ahead, behind = (
            loss(jax.tree.map(lambda p, d, sign=sign: p + sign * 1e-5 * d, state.params, direction))
            for sign in (1, -1)
        )
    assert float(slope) == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def test_masked_examples_count_for_nothing():
    state, batch = state_of(shape=SHAPE), random_batch(8)
    padded = {
        "image": jnp.concatenate([batch["image"], jnp.full((3, *SHAPE), 7.0)]),
        "label": jnp.concatenate([batch["label"], jnp.zeros(3, int)]),
        "mask": jnp.array([1.0] * 8 + [0.0] * 3),
    }
    expected, found = (step(state, examples, Hyperparameters(0.01)) for examples in (batch, padded))
    assert largest_difference(expected[0].params, found[0].params) < 1e-6
    for name in ("loss", "errors", "examples"):
        assert float(found[1][name]) == pytest.approx(float(expected[1][name]), rel=1e-5)


def test_under_vmap_a_model_trains_as_it_does_alone():
    batch = random_batch()
    keys, rates = jax.random.split(jax.random.key(0), 3), jnp.array([0.1, 0.01, 1.0])
    create = functools.partial(
        create_train_state, model=LeNet(), image_shape=SHAPE, optimizer="sgd"
    )
    together, _ = jax.jit(jax.vmap(train_step, (0, None, 0)))(
        jax.vmap(create)(keys), batch, jax.vmap(Hyperparameters)(rates)
    )
    for index in range(3):
        alone, _ = step(create(keys[index]), batch, Hyperparameters(rates[index]))
        member = jax.tree.map(lambda leaf, index=index: leaf[index], together.params)
        assert largest_difference(alone.params, member) < 1e-5


def test_the_schedule_scales_the_rate_of_each_step():
    state, batch = state_of(shape=SHAPE, optimizer="sgd", schedule="linear", total_steps=4), None
    batch = random_batch()
    constant = state_of(shape=SHAPE, optimizer="sgd")
    for taken in range(4):
        scheduled, _ = step(state, batch, Hyperparameters(0.4))
        plain, _ = step(
            constant.replace(params=state.params), batch, Hyperparameters(0.4 * (1 - taken / 4))
        )
        assert largest_difference(scheduled.params, plain.params) < 1e-6
        state = scheduled


def test_eval_step_says_what_the_softmax_says():
    state, batch = state_of(shape=SHAPE), random_batch(5)
    logits = np.asarray(state.model.apply({"params": state.params}, batch["image"]))
    probabilities = scipy.special.softmax(logits, axis=1)
    found = jax.jit(eval_step)(state, batch)
    np.testing.assert_array_equal(found["prediction"], logits.argmax(axis=1))
    np.testing.assert_allclose(found["probability"], probabilities.max(axis=1), rtol=1e-4)
    expected = -np.log(probabilities[np.arange(5), np.arange(5)])
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"optimizer": "adagrad"}, "optimizer='adagrad' is not known; choose one of: sgd"),
        ({"schedule": "step"}, "schedule='step' is not known; choose one of: constant"),
        ({"loss": "hinge"}, "loss='hinge' is not known; choose one of: cross_entropy"),
        ({"total_steps": 0}, "total_steps=0 must be at least 1"),
    ],
)
def test_unknown_ways_of_training_are_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        state_of(**choice)
