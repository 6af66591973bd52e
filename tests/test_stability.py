"""Against dense products, against closed forms, and against what gradient descent does."""

import contextlib
import dataclasses
import functools
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import base
from lenet import (
    codes,
    curvature,
    data,
    experiment,
    gains,
    losses,
    model,
    population,
    program,
    stability,
)
from lenet.model import LeNet
from lenet.templates import stability as told
from tests.test_paper_report import STEPS, plots_of, rows_of, text_of, trained

SHAPE = (16, 16, 1)
# One map of one pixel before c5, so that the smallest images do.
NETWORKS = {
    "rbf": LeNet("scaled_tanh", "subsampling", head="rbf", widths=(2, 3, 4, 84)),
    "dense": LeNet("tanh", "max", head="dense", widths=(2, 3, 4, 5), classes=3),
    "deep": LeNet("tanh", "stride", head="dense", widths=(2, 3, 4, 5), classes=3, extra_layers=1),
    "gap": LeNet("relu", "average", head="gap", widths=(2, 3, 4, 5), classes=4),
    "table": LeNet("tanh", "max", "table1", head="dense", widths=(6, 16, 4, 5), classes=3),
}
gain = jax.jit(stability.step_gain, static_argnums=(0, 5))


IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(3, *SHAPE)), jnp.float32)


def params_of(network):
    """Weights of about the size that lets each layer see the one before."""
    init = functools.partial(model.init_params, network, image_shape=SHAPE)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return around(shapes, 0.0, 0.3, seed=1)


def steps_like(params):
    return jax.tree.map(jnp.exp, around(params, -4.0, 1.0, seed=2))


def around(tree, center, deviation, seed):
    """A tree of random numbers."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(center, deviation, leaf.shape), jnp.float32), tree
    )


@functools.partial(jax.jit, static_argnums=0)
def top_of(network, params):
    """The last layer with parameters, for the image."""
    return network.apply({"params": params}, IMAGES[:1], trained_part=True)[0]


@functools.partial(jax.jit, static_argnums=(0, 4))
def jacobian_and_curvature(network, params, label, numbers, loss):
    def energy(top):
        return losses.LOSSES[loss](network.output_of(top[None]), label[None], *numbers)[0]

    rows = jax.jacrev(functools.partial(top_of, network))(params)
    return rows, jax.hessian(energy)(top_of(network, params))


def dense(network, params, steps, label, loss, *numbers):
    """By the matrix over all parameters, D^(1/2) J^T H J D^(1/2), in double precision."""

    rows, bend = jacobian_and_curvature(network, params, label, numbers, loss)
    rows = [np.asarray(row).reshape(len(bend), -1) for row in jax.tree.leaves(rows)]
    jacobian = np.concatenate(rows, axis=1)
    rates = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(steps)])
    scaled = jacobian.astype(np.float64) * np.sqrt(rates.astype(np.float64))
    return np.linalg.eigvalsh(scaled.T @ np.asarray(bend, np.float64) @ scaled)[-1]


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("rbf", "rbf_mse"),
        ("rbf", "rbf_map"),
        ("dense", "cross_entropy"),
        ("deep", "cross_entropy"),
        ("gap", "cross_entropy"),
        ("table", "cross_entropy"),
    ],
)
def test_the_gain_is_the_largest_eigenvalue_over_all_parameters(name, loss):
    network = NETWORKS[name]
    params, label = params_of(network), jnp.int32(2)
    steps = steps_like(params)
    numbers = (90.0, 0.7)
    found = gain(network, params, steps, IMAGES[0], label, loss, *numbers)
    expected = dense(network, params, steps, label, loss, *numbers)
    assert expected > 1e-3
    assert found == pytest.approx(expected, rel=1e-4)


def only(params, layer, steps):
    """Steps of one layer, and none of the others."""
    return {
        name: steps[name] if name == layer else jax.tree.map(jnp.zeros_like, own)
        for name, own in params.items()
    }


def inputs_of(network, params, layer):
    """What a fully connected layer is given for the image, found from its weights' gradient."""

    slopes = jax.jit(jax.grad(lambda params: top_of(network, params).sum()))(params)
    return slopes[layer]["kernel"][:, 0]


LINEAR = LeNet("identity", "average", head="rbf", widths=(2, 3, 4, 84))


def test_the_gain_of_a_linear_layer_is_the_sum_of_its_squared_inputs_times_their_rates():
    params = params_of(LINEAR)
    steps = only(params, "f6", steps_like(params))
    inputs = inputs_of(LINEAR, params, "f6")
    of_unit = steps["f6"]["bias"] + (steps["f6"]["kernel"] * inputs[:, None] ** 2).sum(axis=0)
    # The loss of a unit is rbf_scale times a square.
    found = gain(LINEAR, params, steps, IMAGES[0], jnp.int32(3), "rbf_mse", 0.0, 0.3)
    assert found == pytest.approx(2 * 0.3 * float(of_unit.max()), rel=1e-5)


def test_two_classes_that_are_as_likely_have_a_curvature_of_a_quarter_each_way():
    network = LeNet("tanh", "max", head="gap", widths=(2, 3, 4, 5), classes=2)
    params = jax.tree.map(jnp.zeros_like, params_of(network))
    steps = only(params, "output", jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.6), params))
    # Nothing but the biases reaches the two outputs; p (1 - p) of each and minus that between them.
    found = gain(network, params, steps, IMAGES[0], jnp.int32(0), "cross_entropy")
    assert found == pytest.approx(0.6 * 2 * 0.25, rel=1e-5)


def test_a_weight_that_is_shared_counts_once_with_all_its_uses():
    network = LeNet("identity", "average", head="rbf", widths=(1, 1, 1, 84))
    params = jax.tree.map(jnp.zeros_like, params_of(network))
    for name in ("c1", "c3", "c5"):
        params[name]["kernel"] = jnp.full_like(params[name]["kernel"], 0.1)
    params["f6"]["kernel"] = params["f6"]["kernel"].at[0, 0].set(1.0)
    steps = only(params, "c3", jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.2), params))
    steps["c3"]["kernel"] = jnp.zeros_like(steps["c3"]["kernel"])
    # A bias moves all the pixels of c3, whose mean s4 gives to c5 times 0.1 and that to a unit.
    found = gain(network, params, steps, IMAGES[0], jnp.int32(0), "rbf_mse")
    assert found == pytest.approx(2 * 0.2 * 0.1**2, rel=1e-5)


@pytest.mark.parametrize(("scaled_to", "grows"), [(0.5, False), (1.9, False), (2.1, True)])
def test_gradient_descent_on_a_linear_model_diverges_above_2_and_converges_below(scaled_to, grows):
    params, label = params_of(LINEAR), jnp.int32(3)
    steps = only(params, "f6", steps_like(params))
    factor = scaled_to / gain(LINEAR, params, steps, IMAGES[0], label, "rbf_mse")
    steps = jax.tree.map(lambda leaf: factor * leaf, steps)
    lost = descend(LINEAR, params, steps, label, 100)
    assert lost[-1] > 100 * lost[0] if grows else lost[-1] < 0.01 * lost[0]


@pytest.mark.slow
@pytest.mark.parametrize(("scaled_to", "grows"), [(1.8, False), (2.2, True)])
def test_a_whole_network_leaves_a_minimum_above_2_and_returns_to_it_below(scaled_to, grows):
    network, label = NETWORKS["rbf"], jnp.int32(3)
    params = params_of(network)
    # Biases with which f6 draws the digit: the loss is 0, and its Hessian all Gauss-Newton.
    units = top_of(network, params)
    code = jnp.asarray(codes.BITMAPS[label].ravel())
    missing = 1.5 * (jnp.arctanh(code / 1.7159) - jnp.arctanh(units / 1.7159))
    params["f6"]["bias"] += missing
    steps = steps_like(params)
    factor = scaled_to / gain(network, params, steps, IMAGES[0], label, "rbf_mse")
    steps = jax.tree.map(lambda leaf: factor * leaf, steps)
    assert descend(network, params, steps, label, 1)[0] < 1e-9
    moved = jax.tree.map(jnp.add, params, around(params, 0.0, 1e-3, seed=3))
    lost = descend(network, moved, steps, label, 60)
    assert max(lost[30:]) > 10 * lost[0] if grows else lost[-1] < 0.1 * lost[0]


@functools.partial(jax.jit, static_argnums=(0, 4))
def descended(network, params, steps, label, count):
    def loss(params):
        return losses.rbf_mse(network.apply({"params": params}, IMAGES[:1]), label[None])[0]

    def step(params, _):
        value, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, e, g: p - e * g, params, steps, gradient), value

    return jax.lax.scan(step, params, length=count)


def descend(network, params, steps, label, count):
    """The loss before each of so many steps on one pattern."""
    return np.asarray(descended(network, params, steps, label, count)[1]).tolist()


@pytest.mark.parametrize(("name", "loss"), [("rbf", "rbf_map"), ("dense", "cross_entropy")])
def test_the_curvature_of_the_loss_has_the_diagonal_that_the_optimizer_begins_with(name, loss):
    network = NETWORKS[name]
    params = params_of(network)
    label = jnp.int32(1)
    top = top_of(network, params)
    found = jax.jit(stability.loss_curvature, static_argnums=(0, 3))(
        network, top, label, loss, 90.0, 0.7
    )
    expected = jax.jit(curvature.at_the_top, static_argnums=(0, 3))(
        network, top[None], label[None], loss, 90.0, 0.7
    )[0]
    np.testing.assert_allclose(jnp.diagonal(found), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 2])
def test_many_patterns_have_the_gains_that_each_has_alone(at_once):
    network = NETWORKS["dense"]
    params = params_of(network)
    steps = steps_like(params)

    labels = jnp.arange(3)
    found = jax.jit(stability.step_gains, static_argnums=(0, 5, 8))(
        network, params, steps, IMAGES, labels, "cross_entropy", 0.0, 1.0, at_once
    )
    alone = [
        gain(network, params, steps, each, label, "cross_entropy", 0.0, 1.0)
        for each, label in zip(IMAGES, labels, strict=True)
    ]
    np.testing.assert_allclose(found, jnp.stack(alone), rtol=1e-5)


def test_the_largest_eigenvalue_is_found_where_others_are_as_large_and_where_all_are_0():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(84, 84)))[0]
    for values in (
        [5.0] * 84,
        [3.0, 2.999] + [1.0] * 82,
        [1e-12] + [0.0] * 83,
        [1e4] + [1e-4] * 83,
    ):
        matrix = jnp.asarray(rotation * values @ rotation.T, jnp.float32)
        assert stability.largest_eigenvalue(matrix) == pytest.approx(values[0], rel=2e-3, abs=1e-30)
    assert stability.largest_eigenvalue(jnp.zeros((3, 3))) == 0
    assert jnp.isnan(stability.largest_eigenvalue(jnp.full((3, 3), jnp.nan)))


def test_a_loss_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="loss"):
        stability.loss_curvature(NETWORKS["gap"], jnp.zeros(4), jnp.int32(0), "nothing")


def test_a_spread_counts_the_gains_beyond_2_and_leaves_out_what_is_not_finite():
    gains = np.array([*[1.0] * 15, 2.0, 2.1, 3.0, 4.0, 5.0, np.nan, np.inf], np.float32)
    found = stability.spread(gains)
    assert (found["patterns"], found["beyond"]) == (20, 4 / 20)
    assert (found["median"], found["max"]) == (1.0, 5.0)
    assert found["q95"] == pytest.approx(4.05)
    nothing = stability.spread(np.full(3, np.nan, np.float32))
    assert nothing.pop("patterns") == 0
    assert set(nothing.values()) == {None}


def test_the_first_two_epochs_are_measured_at_round_numbers_of_steps_and_all_at_their_start():
    for epoch in (0, 1):
        assert stability.marks(epoch, 60_000)[:5] == (0, 2, 9, 29, 99)
        assert stability.marks(epoch, 60_000)[-1] == 29_999
    assert stability.marks(0, 13) == (0, 2, 9)
    assert stability.marks(0, 1) == (0,)
    assert stability.marks(2, 60_000) == (0,)


AFFINE = data.Affine((1 / 255,), (0.0,))
RECIPE = program.Recipe(
    model=NETWORKS["dense"].clone(classes=10),
    optimizer="sdlm",
    schedule="linear",
    loss="cross_entropy",
    batch_size=4,
    num_epochs=2,
    train_examples=90,
    affine=AFFINE,
    curvature_examples=8,
    frozen=("c3",),
)
FIELDS = dataclasses.asdict(program.Hyperparameters(learning_rate=0.05, damping=0.5))


@pytest.fixture(scope="module")
def compiled(digits):
    """Two members, and images of 16x16 pixels."""
    mesh = program.mesh_for(1)
    images = program.place(digits.train_images[:90, 6:22, 6:22], digits.train_labels[:90], mesh)
    return program.compile_program(RECIPE, 2, images, mesh), images


def epoch_of(compiled, images, marks=(), look=lambda members: None):
    numbers = program.numbers_of([FIELDS | {"seed": seed} for seed in (0, 1)])
    members = compiled.create(*program.place_members(numbers, compiled.mesh))
    steps = []
    for reached, step, *_ in program.run_epoch(compiled, members, images, 0, 0, marks=marks):
        members = reached
        steps.append(step)
        if step in marks:
            look(members)
    return members, steps


@pytest.mark.slow
def test_measuring_the_gain_changes_no_bit_of_the_training(compiled):
    found = []
    measure = gains.measurer(compiled[0])
    marks = gains.measured(RECIPE, 0)
    assert marks == (0, 2, 9)
    plain, _ = epoch_of(*compiled)
    watched, steps = epoch_of(
        *compiled, marks, lambda members: found.append(measure(members, compiled[1]))
    )
    assert len(found) == 3
    assert set(marks) < set(steps)
    for ours, theirs in zip(jax.tree.leaves(watched), jax.tree.leaves(plain), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


@pytest.mark.slow
def test_what_is_measured_is_the_gain_of_the_next_step_of_each_member(compiled, monkeypatch):
    monkeypatch.setattr(gains, "EXAMPLES", 3)
    images = compiled[1]
    members, _ = epoch_of(*compiled)
    found, state = gains.measurer(compiled[0])(members, images), members.state
    chosen = jnp.asarray([0, 30, 60])
    pixels = data.normalize(images.pixels[chosen], AFFINE)
    for index in range(2):
        params, curved = (
            jax.tree.map(lambda leaf, index=index: leaf[index], tree)
            for tree in (state.params, optax.tree.get(state.opt_state, "curvature"))
        )
        # The 23 steps of the first of two epochs are made, and the rate falls in a straight line.
        steps = jax.tree.map(lambda h: 0.05 * 0.5 / (0.5 + h), curved)
        steps["c3"] = jax.tree.map(jnp.zeros_like, steps["c3"])
        expected = [
            gain(RECIPE.model, params, steps, each, images.labels[which], "cross_entropy", 1.0, 1.0)
            for each, which in zip(pixels, chosen, strict=True)
        ]
        assert found[index]["max"] == pytest.approx(float(max(expected)), rel=1e-4)
        assert found[index]["patterns"] == 3


def test_other_optimizers_have_no_gains():
    assert gains.measured(dataclasses.replace(RECIPE, optimizer="adam"), 0) == ()


def small_run(folder, monkeypatch, stop_at=None):
    """The lines of the metrics of a short run, stopped once on the way if asked for."""
    config = base.get_config()
    config.update(
        {
            "dataset": "mnist_5k",
            "train_examples": 300,
            "batch_size": 16,
            "num_epochs": 2,
            "optimizer": "sdlm",
            "learning_rate": 0.01,
            "damping": 0.5,
            "curvature_examples": 16,
            "widths": (2, 3, 4, 5),
        }
    )
    config.sweep = ConfigDict({"seed": (0, 1)})
    monkeypatch.setattr(gains, "EXAMPLES", 4)
    questions = []

    @contextlib.contextmanager
    def signals():
        yield lambda: questions.append(1) or (signal.SIGTERM if len(questions) == stop_at else 0)

    monkeypatch.setattr(population, "stop_signals", signals)
    monkeypatch.setattr(experiment.report, "write", lambda folder: None)
    if stop_at:
        with pytest.raises(population.StoppedError):
            experiment.run(config, "x", str(folder))
    experiment.run(config, "x", str(folder))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line | {"train_seconds": 0.0} for line in lines]


@pytest.mark.slow
def test_a_run_that_is_stopped_within_an_epoch_measures_the_same(tmp_path, monkeypatch, digits):
    whole = small_run(tmp_path / "whole", monkeypatch)
    assert [line["epoch"] for line in whole] == [1, 1, 2, 2]
    for line in whole:
        steps = [spread["step"] for spread in line["step_gains"]]
        assert steps == [19 * (line["epoch"] - 1) + within for within in (0, 2, 9)]
        assert all(spread["median"] > 0 for spread in line["step_gains"])
    # The second question is asked after some steps of the first epoch.
    assert small_run(tmp_path / "stopped", monkeypatch, stop_at=2) == whole


def spread_of(median, beyond=0.0, **more):
    return {"patterns": 100, "beyond": beyond, "median": median, "q95": 2 * median} | {
        "max": 3 * median,
        **more,
    }


def measured_run(courses, **more):
    """A run with 100 steps an epoch: of each variant, by seed, its gains at (epoch, step of it)."""
    errors = {variant: [0.1] * len(seeds) for variant, seeds in courses.items()}
    made = trained(more.pop("errors", errors), **{"epochs": 2, **more})
    for variant, seeds in courses.items():
        for seed, course in enumerate(seeds):
            for line in made.metrics[f"{variant}/seed={seed}"]:
                epoch = line["epoch"]
                line["step"] = 100 * epoch
                line["step_gains"] = [
                    {"step": 100 * (epoch - 1) + step, **found}
                    for (at, step), found in course.items()
                    if at == epoch
                ]
    return made


CALM = {(1, 0): spread_of(0.1), (1, 1): spread_of(0.2), (2, 0): spread_of(0.4)}
BROKEN = {(1, 0): spread_of(0.004), (1, 9): spread_of(60.0, 1.0), (2, 0): spread_of(0.0)}


def test_the_report_says_when_the_steps_are_beyond_the_bound():
    section = told.section(measured_run({"base": [BROKEN]}))
    text = text_of(section)
    assert "**100 % of the patterns are beyond 2 when most are, in pass 1.**" in text
    assert "Before the first step the gain is 0.004 in the median and 0.012 at most" in text
    assert "at its worst before pattern 10 of pass 1: 60 in the median and 180 at most" in text
    assert "Pass 2, the last, begins with 0 in the median" in text
    assert "the same 100 training images" in text
    rows = rows_of(section)
    assert rows["worst of pass 1"] == ["1", "10", "60", "120", "180", "100.0 %"]
    plots = plots_of(section)
    assert set(plots) == {"gain_passes", "gain_pass_1"}
    assert all("bound: 2" in plot.svg for plot in plots.values())


def test_the_report_compares_variants_and_takes_means_over_seeds():
    calmer = {moment: found | {"median": 3 * found["median"]} for moment, found in CALM.items()}
    section = told.section(measured_run({"a": [CALM, calmer], "b": [BROKEN]}))
    text = text_of(section)
    assert "**Most patterns are beyond 2 at some time in 1 of 2 variants**: b." in text
    assert "**a**: before the first step the gain is 0.2 in the median" in text
    assert "| a | beginning of the last pass | 2 | 1 | 0.8 | 0.8 | 1.2 | 0.0 % |" in text
    calm = told.section(measured_run({"a": [CALM], "b": [CALM]}))
    assert "At no time that was measured are most patterns beyond 2" in text_of(calm)


def test_of_a_trial_that_diverged_what_is_finite_counts_until_it_did():
    nothing = dict.fromkeys(("beyond", "median", "q95", "max")) | {"patterns": 0}
    lost = {
        (1, 0): spread_of(0.1),
        (1, 1): spread_of(9.0, 0.9),
        (2, 0): nothing,
        (3, 0): spread_of(7.0),
    }
    made = measured_run({"base": [lost]}, errors={"base": [None]}, epochs=3)
    rows = rows_of(told.section(made))
    assert rows["worst of pass 1"][2] == "9"
    # It diverged in the second epoch, and what is told of the third is of the step that broke it.
    assert "beginning of the last pass" not in rows


def test_a_gain_that_was_measured_once_is_told_and_not_drawn():
    section = told.section(measured_run({"base": [{(1, 0): spread_of(0.1)}]}, epochs=1))
    assert set(rows_of(section)) - {"when", "---"} == {"before the first step"}
    assert not plots_of(section)


def test_the_first_two_passes_have_figures_of_their_own():
    late = CALM | {(2, 29): spread_of(5.0, 0.8)}
    section = told.section(measured_run({"a": [late], "b": [CALM]}))
    assert set(plots_of(section)) == {"gain_passes", "gain_pass_1", "gain_pass_2"}
    assert "| a | worst of a later pass | 2 | 30 | 5 | 10 | 15 | 80.0 % |" in text_of(section)


def test_a_run_from_before_there_were_gains_has_no_such_section():
    assert told.section(trained({"base": [0.01]}, steps=[(STEPS, STEPS)])) is None
    made = trained({"base": [0.01]})
    for line in made.metrics["base/seed=0"]:
        line["step_gains"] = None
    assert told.section(made) is None
