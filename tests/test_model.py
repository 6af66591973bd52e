import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lenet import layers, model
from lenet.model import LeNet

GREY, COLOUR = (32, 32, 1), (32, 32, 3)


@functools.cache
def params_of(network, shape=GREY):
    return jax.jit(lambda key: model.init_params(network, key, shape))(jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def apply(network, params, images):
    return network.apply({"params": params}, images)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("shape", "parameters"),
    # PyTorch's own count of the note's Net, and of the same with Conv2d(1, 6, 5).
    [(COLOUR, 62_006), (GREY, 61_706)],
)
def test_the_modern_network_has_the_parameters_of_its_pytorch_original(shape, parameters):
    assert count(params_of(LeNet(), shape)) == parameters
    assert model.summarize(LeNet(), shape).parameters == parameters


def test_the_layers_of_1998_have_the_papers_parameters_and_connections():
    network = LeNet(activation="scaled_tanh", pooling="subsampling", connections="table1")
    rows = {row.name: row for row in model.summarize(network, GREY).layers}
    # LeCun et al. 1998, section II.B; the RBF output has no parameters and comes separately.
    paper = {
        "c1": (156, 122_304),
        "s2": (12, 5_880),
        "c3": (1_516, 151_600),
        "s4": (32, 2_000),
        "c5": (48_120, 48_120),
        "f6": (10_164, 10_164),
    }
    assert {name: (rows[name].parameters, rows[name].connections) for name in paper} == paper
    assert sum(parameters for parameters, _ in paper.values()) == 60_000


def test_receptive_fields_and_shapes_are_those_of_the_architecture():
    rows = model.summarize(LeNet(), GREY).layers
    assert [(row.name, row.output_shape, row.receptive_field) for row in rows] == [
        ("c1", (28, 28, 6), 5),
        ("s2", (14, 14, 6), 6),
        ("c3", (10, 10, 16), 14),
        ("s4", (5, 5, 16), 16),
        ("c5", (120,), 32),
        ("f6", (84,), 32),
        ("output", (10,), 32),
    ]


@pytest.mark.parametrize("name", ["c1", "s2", "c3", "s4"])
def test_the_receptive_field_is_what_the_gradient_reaches(name):
    network = LeNet(activation="softplus", pooling="average")
    params = params_of(network)

    def unit(images):
        _, captured = network.apply({"params": params}, images, capture_intermediates=True)
        output = captured["intermediates"][name]["__call__"][0]
        maps = output if output.ndim == 4 else layers.merge_phases(output)
        return maps[0, 1, 1, 0]

    gradient = jax.grad(unit)(jax.random.normal(jax.random.key(1), (1, *GREY)))[0, :, :, 0]
    rows, columns = np.nonzero(np.asarray(gradient))
    field = {row.name: row.receptive_field for row in model.summarize(network, GREY).layers}[name]
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (field, field)


def test_multiply_adds_of_the_modern_network():
    rows = {row.name: row.multiply_adds for row in model.summarize(LeNet(), GREY).layers}
    assert rows == {
        "c1": 28 * 28 * 25 * 6,
        "s2": 0,
        "c3": 10 * 10 * 25 * 6 * 16,
        "s4": 0,
        "c5": 400 * 120,
        "f6": 120 * 84,
        "output": 84 * 10,
    }


def test_share_of_fully_connected_parameters():
    # 48,120 + 10,164 + 850 of 62,006.
    assert model.summarize(LeNet(), COLOUR).fully_connected_share == pytest.approx(59_134 / 62_006)


def plain_network(params, images, activation, pool):
    """The same network written with lax.conv, reduce_window and NHWC, from the definition."""

    def convolve(x, layer):
        y = jax.lax.conv_general_dilated(
            x, layer["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return activation(y + layer["bias"].reshape(1, 1, 1, -1))

    x = pool(convolve(images, params["c1"]))
    x = pool(convolve(x, params["c3"]))
    x = x.transpose(0, 3, 1, 2).reshape(len(images), -1)
    for name in ("c5", "f6"):
        x = activation(x @ params[name]["kernel"] + params[name]["bias"].reshape(1, -1))
    return x @ params["output"]["kernel"] + params["output"]["bias"].reshape(1, -1)


def windows(reducer, initial, x):
    return jax.lax.reduce_window(x, initial, reducer, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


POOLS = {
    "max": functools.partial(windows, jax.lax.max, -np.inf),
    "average": lambda x: windows(jax.lax.add, 0.0, x) / 4,
    # An odd last row or column is dropped, as the others drop it.
    "none": lambda x: x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2],
}


@pytest.mark.parametrize("pooling", POOLS)
@pytest.mark.parametrize("activation", layers.ACTIVATIONS)
def test_the_network_equals_its_definition(activation, pooling):
    shape = (32, 35, 3)
    network = LeNet(activation=activation, pooling=pooling)
    params = params_of(LeNet(pooling=pooling), shape)
    images = jax.random.normal(jax.random.key(1), (3, *shape))
    expected = plain_network(params, images, layers.ACTIVATIONS[activation], POOLS[pooling])
    np.testing.assert_allclose(apply(network, params, images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", layers.POOLINGS)
@pytest.mark.parametrize("head", model.HEADS)
def test_all_convolutions_compute_the_same_network(pooling, head):
    params = params_of(LeNet(pooling=pooling, head=head))
    images = jax.random.normal(jax.random.key(1), (2, *GREY))
    *fast, reference = (
        apply(LeNet(pooling=pooling, head=head, convolution=name), params, images)
        for name in ("polyphase", "patches", "lax")
    )
    for ours in fast:
        np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", layers.POOLINGS)
def test_the_activation_reaches_every_layer(pooling):
    """With f = 0 wherever it is applied, each layer before the output must become constant."""
    network = LeNet(pooling=pooling, activation="relu")
    params = params_of(network)
    images = jax.random.normal(jax.random.key(1), (2, *GREY))
    for name in ("c1", "c3", "c5", "f6"):
        dead = {**params[name], "bias": jnp.full_like(params[name]["bias"], -1e6)}
        logits = apply(network, {**params, name: dead}, images)
        np.testing.assert_allclose(logits[0], logits[1], atol=1e-6)


@pytest.mark.parametrize("activation", sorted(set(layers.ACTIVATIONS) - {"identity"}))
def test_no_layer_is_left_linear(activation):
    network = LeNet(activation=activation, pooling="average")
    params = params_of(LeNet())
    images = jax.random.normal(jax.random.key(1), (1, *GREY))

    def logits(layer, scale):
        scaled = jax.tree.map(lambda leaf: scale * leaf, params[layer])
        return apply(network, {**params, layer: scaled}, images)

    for layer in ("c1", "c3", "c5", "f6"):
        bend = logits(layer, 4.0) + logits(layer, -3.0) - logits(layer, 1.0) - logits(layer, 0.0)
        assert np.abs(bend).max() > 1e-4, layer


@pytest.mark.parametrize(
    ("choices", "shape"),
    [
        ({"pooling": "stride"}, GREY),
        ({"head": "gap"}, COLOUR),
        ({"connections": "table1"}, COLOUR),
        ({"widths": (3, 5, 7, 9)}, (40, 33, 1)),
        ({"classes": 47}, (16, 16, 1)),
    ],
)
def test_logits_have_one_row_an_image_and_one_column_a_class(choices, shape):
    network = LeNet(**choices)
    logits = network.apply({"params": params_of(network, shape)}, jnp.ones((4, *shape)))
    assert logits.shape == (4, choices.get("classes", 10))


def test_images_too_small_are_refused():
    with pytest.raises(ValueError, match="images are 15x32; LeNet takes 16x16 and more"):
        params_of(LeNet(), (15, 32, 1))


def test_gap_averages_the_maps_of_s4():
    network = LeNet(head="gap")
    params = params_of(network)
    images = jax.random.normal(jax.random.key(1), (2, *GREY))
    logits, captured = network.apply({"params": params}, images, capture_intermediates=True)
    maps = captured["intermediates"]["s4"]["__call__"][0]
    means = np.asarray(maps).mean(axis=(1, 2)).T
    expected = means @ params["output"]["kernel"] + np.reshape(params["output"]["bias"], (1, -1))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_without_pooling_c5_sees_every_pixel_of_c3():
    summary = model.summarize(LeNet(pooling="none"), GREY)
    assert [row.name for row in summary.layers] == ["c1", "c3", "c5", "f6", "output"]
    # 24x24 pixels of 16 maps, with a bias for each of the 120 units.
    assert summary.layers[2].parameters == 24 * 24 * 16 * 120 + 120
    assert [row.receptive_field for row in summary.layers[:2]] == [5, 9]
    assert summary.parameters == count(params_of(LeNet(pooling="none")))


def test_extra_layers_are_as_wide_as_f6_and_stand_after_it():
    deep, plain = LeNet(extra_layers=3), LeNet()
    added = count(params_of(deep)) - count(params_of(plain))
    assert added == 3 * (84 * 84 + 84)
    assert model.layer_names(deep)[-5:] == ("f6", "f7", "f8", "f9", "output")
    assert model.summarize(deep, GREY).parameters == count(params_of(deep))


def test_dropout_takes_its_share_of_units_and_only_where_there_is_an_rng():
    network = LeNet(dropout=0.25, activation="softplus")
    params = params_of(network)
    images = jax.random.normal(jax.random.key(1), (64, *GREY))
    whole = apply(LeNet(activation="softplus"), params, images)
    np.testing.assert_array_equal(apply(network, params, images), whole)
    _, captured = network.apply(
        {"params": params},
        images,
        rngs={"dropout": jax.random.key(2)},
        capture_intermediates=True,
    )
    before, after = (
        np.asarray(captured["intermediates"][name]["__call__"][0]) for name in ("c5", "Dropout_0")
    )
    dropped = after == 0
    # Of 64 images and 120 units, within five standard deviations.
    assert abs(dropped.mean() - 0.25) < 5 * (0.25 * 0.75 / (64 * 120)) ** 0.5
    kept = np.log1p(np.exp(before)) / 0.75
    np.testing.assert_allclose(after[~dropped], kept[~dropped], rtol=1e-5)
