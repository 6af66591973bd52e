import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads

from lenet import layers

CONNECTED = {
    # Which maps of S2 feed each map of C3, read column by column off the paper's Table I.
    0: (0, 1, 2),
    1: (1, 2, 3),
    5: (0, 1, 5),
    6: (0, 1, 2, 3),
    11: (0, 1, 2, 5),
    12: (0, 1, 3, 4),
    14: (0, 2, 3, 5),
    15: (0, 1, 2, 3, 4, 5),
}


def random(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def reference(maps, kernel, bias):
    convolved = lax.conv_general_dilated(
        maps, kernel, (1, 1), "VALID", dimension_numbers=("CHWN", "HWIO", "CHWN")
    )
    return convolved + bias[:, None, None, None]


CONVOLVE = st.sampled_from([layers.convolve_polyphase, layers.convolve_patches, layers.convolve])


def pooled_by_loop(maps, pool):
    channel, height, width, batch = maps.shape
    out = np.zeros((channel, height // 2, width // 2, batch))
    for c, r, s, b in np.ndindex(out.shape):
        out[c, r, s, b] = pool(maps[c, 2 * r : 2 * r + 2, 2 * s : 2 * s + 2, b])
    return out


@given(
    channel=st.integers(1, 4),
    features=st.integers(1, 5),
    size=st.sampled_from([1, 3, 5, 7]),
    extra=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
    convolve=CONVOLVE,
)
@settings(max_examples=10, deadline=None)
def test_convolution_equals_lax_for_any_shape(
    channel, features, size, extra, batch, seed, convolve
):
    height, width = size + extra[0], size + extra[1]
    maps, kernel, bias = (
        random(seed, channel, height, width, batch),
        random(seed + 1, size, size, channel, features),
        random(seed + 2, features),
    )
    expected = reference(maps, kernel, bias)
    even = expected[:, : expected.shape[1] // 2 * 2, : expected.shape[2] // 2 * 2]
    merged = layers.merge_phases(convolve(maps, kernel, bias))
    np.testing.assert_allclose(merged, even, rtol=1e-5, atol=1e-5 * size**2 * channel)


def test_convolution_equals_scipy_correlation():
    maps, kernel = np.asarray(random(0, 3, 12, 14, 2)), np.asarray(random(1, 5, 5, 3, 4))
    bias = jnp.arange(4.0)
    merged = layers.merge_phases(layers.convolve(jnp.asarray(maps), jnp.asarray(kernel), bias))
    for out in range(4):
        for image in range(2):
            expected = sum(
                scipy.signal.correlate2d(maps[c, :, :, image], kernel[:, :, c, out], mode="valid")
                for c in range(3)
            )
            expected = expected + out
            np.testing.assert_allclose(merged[out, :, :, image], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("convolve", [layers.convolve_polyphase, layers.convolve_patches])
def test_convolution_has_the_gradients_of_lax(convolve, batch):
    arguments = (random(0, 6, 14, 14, batch), random(1, 5, 5, 6, 16), random(3, 16))
    weights = random(2, 16, 10, 10, batch)

    def loss(merged):
        return (jnp.sin(merged) * weights).sum()

    def gradients(convolve):
        return jax.grad(lambda *a: loss(convolve(*a)), (0, 1, 2))(*arguments)

    ours = gradients(lambda *a: layers.merge_phases(convolve(*a)))
    for found, expected in zip(ours, gradients(reference), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("convolve", [layers.convolve_polyphase, layers.convolve_patches])
def test_convolution_has_the_gradient_of_a_finite_difference(convolve):
    check_grads(
        lambda *args: jnp.tanh(convolve(*map(jnp.asarray, args))),
        (random(0, 2, 8, 8, 2), 0.1 * random(1, 5, 5, 2, 3), random(2, 3)),
        order=1,
        modes=["fwd", "rev"],
        rtol=2e-2,
        atol=2e-2,
    )


def test_convolution_by_itself_takes_polyphase_where_there_are_many_patches():
    kernel, bias = random(1, 5, 5, 6, 16), jnp.zeros(16)
    for batch, expected in ((1, layers.convolve_patches), (64, layers.convolve_polyphase)):
        maps = random(0, 6, 14, 14, batch)
        found, wanted = layers.convolve(maps, kernel, bias), expected(maps, kernel, bias)
        np.testing.assert_array_equal(found, wanted)


def test_connected_kernels_are_spread_to_where_the_table_has_them():
    connected = random(0, 5, 5, 60)
    expected = np.zeros((5, 5, 6, 16), np.float32)
    expected[:, :, *np.nonzero(layers.TABLE_1)] = connected
    np.testing.assert_array_equal(layers.spread_connections(connected, layers.TABLE_1), expected)


def test_polyphase_convolution_in_a_scan_and_under_vmap_is_the_same():
    maps, kernels, bias = random(0, 1, 12, 12, 4), random(1, 3, 5, 5, 1, 2), random(2, 2)
    alone = jnp.stack([layers.convolve_polyphase(maps, kernel, bias) for kernel in kernels])
    mapped = jax.vmap(layers.convolve_polyphase, in_axes=(None, 0, None))(maps, kernels, bias)
    _, scanned = lax.scan(
        lambda carry, kernel: (carry, layers.convolve_polyphase(maps, kernel, bias)), 0, kernels
    )
    np.testing.assert_allclose(mapped, alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scanned, alone, rtol=1e-5, atol=1e-5)


def test_polyphase_convolution_refuses_even_kernels():
    with pytest.raises(ValueError, match="kernel size 4 is even"):
        layers.convolve_polyphase(random(0, 1, 8, 8, 1), random(1, 4, 4, 1, 1), jnp.zeros(1))


@given(shape=st.tuples(*[st.integers(1, 6)] * 4))
@settings(max_examples=8, deadline=None)
def test_phases_are_the_even_and_odd_rows_and_columns(shape):
    maps = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    even = maps[:, : shape[1] // 2 * 2, : shape[2] // 2 * 2]
    phases = layers.split_phases(maps)
    for p in (0, 1):
        for q in (0, 1):
            np.testing.assert_array_equal(phases[p, q], even[:, p::2, q::2])
    np.testing.assert_array_equal(layers.merge_phases(phases), even)


@pytest.mark.parametrize("activation", layers.ACTIVATIONS)
@pytest.mark.parametrize(("kind", "pool"), [("max", np.max), ("average", np.mean)])
def test_pooling_equals_a_loop_over_windows(kind, pool, activation):
    maps = random(0, 2, 6, 4, 3)
    layer = layers.Pooling(kind, activation)
    expected = pooled_by_loop(np.asarray(layers.ACTIVATIONS[activation](maps)), pool)
    np.testing.assert_allclose(layer.apply({}, layers.split_phases(maps)), expected, atol=1e-6)


def test_max_pooling_gives_the_gradient_of_a_tie_to_one_of_them():
    maps = jnp.ones((1, 2, 2, 1))
    layer = layers.Pooling("max", "identity")
    gradient = jax.grad(lambda maps: layer.apply({}, layers.split_phases(maps)).sum())(maps)
    assert gradient.sum() == 1
    assert gradient[0, 0, 0, 0] == 1


def test_subsampling_is_the_papers():
    maps = random(0, 2, 6, 4, 3)
    coefficient, bias = jnp.array([0.5, -1.5]), jnp.array([0.1, 0.2])
    layer = layers.Pooling("subsampling", "scaled_tanh")

    def squash(a):
        return 1.7159 * np.tanh(2 / 3 * a)

    summed = pooled_by_loop(squash(np.asarray(maps)), np.sum)
    by_map = (2, 1, 1, 1)
    expected = squash(np.reshape(coefficient, by_map) * summed + np.reshape(bias, by_map))
    params = {"params": {"coefficient": coefficient, "bias": bias}}
    np.testing.assert_allclose(layer.apply(params, layers.split_phases(maps)), expected, atol=1e-6)


def test_stride_is_a_strided_convolution():
    maps = random(0, 3, 6, 8, 2)
    layer = layers.Pooling("stride", "tanh")
    params = {"kernel": random(1, 2, 2, 3, 3), "bias": random(2, 3)}
    strided = lax.conv_general_dilated(
        jnp.tanh(maps),
        params["kernel"],
        (2, 2),
        "VALID",
        dimension_numbers=("CHWN", "HWIO", "CHWN"),
    )
    expected = jnp.tanh(strided + params["bias"][:, None, None, None])
    found = layer.apply({"params": params}, layers.split_phases(maps))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_scaled_tanh_has_the_properties_the_paper_gives_it():
    np.testing.assert_allclose(layers.scaled_tanh(jnp.array([1.0, -1.0])), [1, -1], atol=1e-5)
    a = np.linspace(0.5, 1.5, 2001)
    second = jax.vmap(jax.grad(jax.grad(layers.scaled_tanh)))(jnp.asarray(a))
    assert abs(a[np.abs(second).argmax()] - 1) < 0.02


def test_table_1_is_the_papers():
    assert layers.TABLE_1.shape == (6, 16)
    assert layers.TABLE_1.sum() == 60
    assert (layers.TABLE_1.sum(axis=1) == 10).all()
    assert layers.TABLE_1.sum(axis=0).tolist() == [3] * 6 + [4] * 9 + [6]
    for column, rows in CONNECTED.items():
        assert tuple(np.flatnonzero(layers.TABLE_1[:, column])) == rows


def test_unconnected_maps_do_not_reach_each_other():
    layer = layers.Convolution(16, "table1")
    maps = random(0, 6, 8, 8, 2)
    params = layer.init(jax.random.key(1), maps)
    before = layer.apply(params, maps)
    for row in range(6):
        after = layer.apply(params, maps.at[row].add(1.0))
        changed = np.abs(np.asarray(after - before)).max(axis=(0, 1, 3, 4, 5)) > 1e-6
        np.testing.assert_array_equal(changed, layers.TABLE_1[row])


def test_table_1_needs_6_maps_and_16():
    with pytest.raises(ValueError, match="from 6 maps to 16, not from 6 to 8"):
        layers.Convolution(8, "table1").init(jax.random.key(0), random(0, 6, 8, 8, 1))


@pytest.mark.parametrize(
    ("name", "deviation", "bound"),
    [
        # For a fan-in of 400 and a fan-out of 120; a uniform in +-b has deviation b / sqrt(3).
        ("lecun_normal", 400**-0.5, 2 * 400**-0.5 / 0.8796),
        ("he_normal", (2 / 400) ** 0.5, 2 * (2 / 400) ** 0.5 / 0.8796),
        ("glorot_uniform", (2 / 520) ** 0.5, (6 / 520) ** 0.5),
        ("torch", 400**-0.5 / 3**0.5, 400**-0.5),
        ("uniform_1998", 2.4 / 400 / 3**0.5, 2.4 / 400),
    ],
)
def test_initial_weights_have_the_spread_their_rule_says(name, deviation, bound):
    drawn = layers.initialize_weights(
        jax.random.key(0), (400, 120), name=name, fan_in=400, fan_out=120
    )
    assert np.std(drawn) == pytest.approx(deviation, rel=0.01)
    assert np.abs(drawn).max() == pytest.approx(bound, rel=0.01)


def test_table_1_scales_each_kernel_by_its_own_fan_in():
    layer = layers.Convolution(16, "table1", "uniform_1998")
    kernel = layer.init(jax.random.key(0), random(0, 6, 8, 8, 1))["params"]["kernel"]
    columns = np.nonzero(layers.TABLE_1)[1]
    for column, inputs in ((0, 3), (8, 4), (15, 6)):
        greatest = np.abs(kernel[:, :, columns == column]).max()
        assert greatest == pytest.approx(2.4 / (25 * inputs), rel=0.05)


def test_only_the_torch_rule_draws_biases():
    for name in layers.INITIALIZATIONS:
        bias = layers.initialize_biases(jax.random.key(0), (8,), name=name, fan_in=25)
        assert bool(jnp.any(bias != 0)) == (name == "torch")


@pytest.mark.parametrize(
    ("registry", "field", "layer"),
    [
        (layers.ACTIVATIONS, "activation", layers.Pooling("max", "leaky")),
        (layers.POOLINGS, "pooling", layers.Pooling("median", "relu")),
    ],
)
def test_an_unknown_choice_names_the_field_and_the_valid_ones(registry, field, layer):
    with pytest.raises(ValueError, match=field) as raised:
        layer.init(jax.random.key(0), random(0, 2, 2, 1, 4, 4, 1))
    assert all(name in str(raised.value) for name in registry)
