import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lenet import curvature, data, program
from lenet.model import LeNet
from lenet.program import Recipe

TRAIN, TEST = 203, 61
AFFINE = data.Affine((1 / 255,), (0.0,))
RECIPE = Recipe(
    model=LeNet(activation="tanh"),
    optimizer="adam",
    schedule="cosine",
    loss="cross_entropy",
    batch_size=16,
    num_epochs=2,
    train_examples=TRAIN,
    affine=AFFINE,
)


def placed(digits, mesh):
    """The middle 16x16 pixels of real digits: small, and yet to be learned."""
    pixels = np.concatenate([digits.train_images[:TRAIN], digits.test_images[:TEST]])
    labels = np.concatenate([digits.train_labels[:TRAIN], digits.test_labels[:TEST]])
    return program.place(pixels[:, 6:22, 6:22], labels, mesh)


@pytest.fixture(scope="module")
def images(digits):
    return placed(digits, program.mesh_for(1))


def fields(seed=0, learning_rate=1e-3):
    numbers = dataclasses.asdict(program.Hyperparameters())
    return {**numbers, "seed": seed, "learning_rate": learning_rate}


def trained(images, trials, recipe=RECIPE, epochs=1, seconds_per_call=0.5, mesh=None):
    mesh = mesh or program.mesh_for(1)
    compiled = program.compile_program(recipe, len(trials), images, mesh)
    members = compiled.create(*program.place_members(program.numbers_of(trials), mesh))
    for epoch in range(epochs):
        for advanced, *_ in program.run_epoch(
            compiled, members, images, epoch, 0, seconds_per_call=seconds_per_call
        ):
            members = advanced
    return compiled, members


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def assert_close(a, b, tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance)


start_epoch = jax.jit(program.start_epoch, static_argnums=0)


def orders(images, seed, epochs, recipe=RECIPE):
    member = program.create_member(recipe, (16, 16, 1), jnp.int32(seed), program.Hyperparameters())
    return [
        np.asarray(start_epoch(recipe, member, images, jnp.int32(epoch))[1]) for epoch in epochs
    ]


def test_a_constant_order_is_that_of_the_first_epoch(images):
    fresh, constant = (
        orders(images, 0, [0, 1], dataclasses.replace(RECIPE, fresh_order=fresh))
        for fresh in (True, False)
    )
    np.testing.assert_array_equal(constant[0], constant[1])
    np.testing.assert_array_equal(constant[0], fresh[0])
    assert (fresh[0] != fresh[1]).any()


def test_sdlm_estimates_its_curvature_anew_before_each_epoch(images):
    recipe = dataclasses.replace(RECIPE, optimizer="sdlm", curvature_examples=TRAIN)
    member = program.create_member(recipe, (16, 16, 1), jnp.int32(0), program.Hyperparameters())
    started, _ = start_epoch(recipe, member, images, jnp.int32(0))
    found = optax.tree.get(started.state.opt_state, "curvature")
    # All training examples, in whatever order they are drawn.
    pixels = data.normalize(images.pixels[:TRAIN], AFFINE)
    expected = jax.jit(curvature.diagonal, static_argnums=(0, 4))(
        recipe.model, member.state.params, pixels, images.labels[:TRAIN], recipe.loss
    )
    assert_close(found, expected, 1e-5)
    few = dataclasses.replace(recipe, curvature_examples=8)
    later = member.replace(state=member.state.replace(step=jnp.int32(13)))
    first, second = (
        optax.tree.get(
            start_epoch(few, begun, images, jnp.int32(0))[0].state.opt_state,
            "curvature",
        )
        for begun in (member, later)
    )
    assert bits(first) != bits(second)


def test_the_steps_of_sdlm_are_spread_as_its_curvature_is(images):
    trials = [fields(seed, learning_rate=1e-2) | {"damping": 0.5} for seed in (0, 1)]
    recipe = dataclasses.replace(RECIPE, optimizer="sdlm", schedule="passes_1998", num_epochs=20)
    members = trained(images, trials, recipe, epochs=3)[1]
    found = program.step_sizes(members)
    for index, spread in enumerate(found):
        held = optax.tree.get(members.state.opt_state, "curvature")
        largest = max(float(leaf[index].max()) for leaf in jax.tree.leaves(held))
        # The third pass of the paper's schedule has 2/5 of the first one's rate.
        assert spread["min"] == pytest.approx(0.4e-2 / (0.5 + largest), rel=1e-5)
        assert spread["min"] < spread["q05"] < spread["median"] < spread["q95"] < spread["max"]
        assert spread["max"] <= 0.4e-2 / 0.5 * (1 + 1e-6)
    assert program.step_sizes(trained(images, trials[:1])[1]) is None


FREQUENT = dataclasses.replace(RECIPE, optimizer="sdlm", curvature_examples=8, curvature_interval=5)


def test_the_curvature_is_estimated_anew_after_every_interval(images):
    numbers = program.Hyperparameters(learning_rate=1e-2, damping=0.5, curvature_memory=0.75)
    member = program.create_member(FREQUENT, (16, 16, 1), jnp.int32(0), numbers)
    member, order = start_epoch(FREQUENT, member, images, jnp.int32(0))
    advance = jax.jit(program.advance, static_argnums=0)
    whole = advance(FREQUENT, member, order, images, jnp.int32(0), jnp.int32(13))
    once = dataclasses.replace(FREQUENT, curvature_interval=0)
    for start, stop in ((0, 5), (5, 10), (10, 13)):
        if start:
            member = jax.jit(program.estimate_curvature, static_argnums=0)(once, member, images)
        member = advance(once, member, order, images, jnp.int32(start), jnp.int32(stop))
    assert_close(whole.state, member.state, 1e-5)


def test_an_epoch_presents_every_example_once(images):
    (order,) = orders(images, 0, [0])
    assert order.shape == (13, 16)
    assert sorted(order[order >= 0]) == list(range(TRAIN))
    assert (order.ravel()[TRAIN:] == -1).all()


def test_each_seed_and_each_epoch_has_its_own_order_and_always_the_same(images):
    first, second = orders(images, 0, [0, 1])
    (other,) = orders(images, 1, [0])
    (again,) = orders(images, 0, [0])
    assert (first != second).any()
    assert (first != other).any()
    np.testing.assert_array_equal(first, again)


def test_the_sums_of_an_epoch_count_every_example(images):
    _, members = trained(images, [fields()])
    assert members.examples.tolist() == [TRAIN]
    assert 0 < members.errors[0] <= TRAIN


def test_training_lowers_the_loss(images):
    compiled, members = trained(images, [fields(learning_rate=3e-3)], epochs=2)
    fresh = compiled.create(*program.numbers_of([fields()]))
    before, after = (
        program.evaluate(compiled, each, images, 0, TRAIN)["loss"].mean()
        for each in (fresh, members)
    )
    assert after < 0.7 * before


@pytest.mark.parametrize("recipe", [RECIPE, FREQUENT], ids=["adam", "sdlm"])
def test_where_an_epoch_is_cut_changes_no_bit(images, recipe):
    whole = trained(images, [fields()], recipe, seconds_per_call=1e9)[1]
    stepwise = trained(images, [fields()], recipe, seconds_per_call=0.0)[1]
    assert bits(whole) == bits(stepwise)


def test_an_epoch_taken_up_in_the_middle_ends_the_same(images):
    compiled, expected = trained(images, [fields()])
    members = compiled.create(*program.numbers_of([fields()]))
    for advanced, step, *_ in program.run_epoch(
        compiled, members, images, 0, 0, seconds_per_call=0.0
    ):
        members = advanced
        if step == 5:
            break
    for advanced, *_ in program.run_epoch(compiled, members, images, 0, 5):
        members = advanced
    assert bits(members) == bits(expected)


def test_a_member_trains_as_it_does_alone(images):
    trials = [fields(0, 1e-3), fields(1, 1e-2), fields(2, 1e-4)]
    together = trained(images, trials)[1]
    for index, trial in enumerate(trials):
        alone = trained(images, [trial])[1]
        member = jax.tree.map(lambda leaf, index=index: leaf[index : index + 1], together)
        assert_close(member.state.params, alone.state.params, 2e-4)


@pytest.mark.parametrize("at_once", [2, 3])
def test_members_trained_at_once_train_as_one_by_one(images, at_once):
    trials = [fields(seed) for seed in range(3)]
    recipe = dataclasses.replace(RECIPE, members_at_once=at_once)
    tiled = trained(images, trials, recipe)[1]
    assert_close(tiled.state.params, trained(images, trials)[1].state.params, 2e-4)


def test_vmap_over_all_members_is_the_same_function():
    def function(member, shared):
        return member["x"] @ shared, member["y"] + 1

    members = {"x": jnp.arange(24.0).reshape(4, 2, 3), "y": jnp.arange(4)}
    found = [
        program.map_members(function, (True, False), at_once)(members, jnp.ones(3))
        for at_once in (0, 1, 3)
    ]
    for other in found[1:]:
        assert_close(found[0], other, 1e-6)


def test_members_spread_over_devices_train_as_on_one(images, digits):
    mesh = program.mesh_for(5)
    assert mesh.size == jax.device_count() == 2
    trials = [fields(seed) for seed in range(4)]
    spread = trained(placed(digits, mesh), trials, mesh=mesh)[1]
    assert len(spread.state.step.sharding.device_set) == 2
    assert_close(spread.state.params, trained(images, trials)[1].state.params, 2e-4)


def test_devices_must_divide_the_members(images):
    with pytest.raises(ValueError, match="3 members cannot be spread evenly over 2 devices"):
        program.compile_program(RECIPE, 3, images, program.mesh_for(3))


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_diverging_neighbour_is_frozen_and_changes_no_bit(images, at_once):
    recipe = dataclasses.replace(
        RECIPE, optimizer="sgd", model=LeNet(activation="relu"), members_at_once=at_once
    )
    calm = trained(images, [fields(0, 0.01), fields(1, 0.01)], recipe)[1]
    beside = trained(images, [fields(0, 0.01), fields(1, 1e8)], recipe)[1]
    assert calm.diverged.tolist() == [False, False]
    assert beside.diverged.tolist() == [False, True]
    assert bits(jax.tree.map(lambda leaf: leaf[0], calm)) == bits(
        jax.tree.map(lambda leaf: leaf[0], beside)
    )
    assert beside.state.step[1] < beside.state.step[0] == RECIPE.steps_per_epoch


@pytest.mark.parametrize(("start", "count"), [(0, TRAIN), (TRAIN, TEST), (10, 1), (5, 0)])
def test_evaluation_is_exact_for_any_number_of_examples(images, monkeypatch, start, count):
    monkeypatch.setattr(program, "EVALUATION_BATCH", 20)
    monkeypatch.setattr(program, "EVALUATION_BLOCK", 40)
    compiled = program.compile_program(RECIPE, 2, images, program.mesh_for(1))
    members = compiled.create(*program.numbers_of([fields(0), fields(1)]))
    found = program.evaluate(compiled, members, images, start, count)
    assert found["error"].shape == (2, count)
    pixels = np.asarray(images.pixels[start : start + count], np.float32) / 255
    for index in range(2 if count else 0):
        params = jax.tree.map(lambda leaf, index=index: leaf[index], members.state.params)
        logits = np.asarray(RECIPE.model.apply({"params": params}, jnp.asarray(pixels)))
        np.testing.assert_array_equal(found["prediction"][index], logits.argmax(axis=1))
        labels = np.asarray(images.labels[start : start + count])
        assert found["error"][index].sum() == (logits.argmax(axis=1) != labels).sum()


def test_rates_are_traced_so_other_rates_need_no_new_program(images):
    compiled = program.compile_program(RECIPE, 1, images, program.mesh_for(1))
    results = []
    for rate in (1e-3, 1e-2):
        members = compiled.create(*program.numbers_of([fields(0, rate)]))
        for advanced, *_ in program.run_epoch(compiled, members, images, 0, 0):
            members = advanced
        results.append(bits(members.state.params))
    assert results[0] != results[1]


def test_the_same_seed_starts_two_variants_alike():
    a, b = (
        program.create_member(
            dataclasses.replace(RECIPE, model=LeNet(activation=name)),
            (16, 16, 1),
            jnp.int32(3),
            program.Hyperparameters(),
        )
        for name in ("tanh", "relu")
    )
    assert bits(a.state.params) == bits(b.state.params)
