import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from lenet.layers import CONVOLUTIONS, POOLINGS
from lenet.model import LeNet, init_params
from lenet.optimizers import Hyperparameters
from lenet.precision import PRECISIONS, at_precision
from lenet.train import create_train_state, train_step

LOWER = [name for name in PRECISIONS if name != "float32"]
# What a precision is to XLA, as it stands in a program.
IN_PROGRAM = {
    "float32": lax.Precision.HIGHEST,
    "tensorfloat32": lax.Precision.HIGH,
    "bfloat16": lax.Precision.DEFAULT,
}


def product(x, matrix):
    return x @ matrix


def to_bfloat16(x):
    return jnp.asarray(x).astype(jnp.bfloat16)


def rounded_by_hand(x, bits):
    """Nearest, ties to even, on the integers that stand for the numbers."""
    dropped = np.uint32(23 - bits)
    stored = np.asarray(x, np.float32).view(np.uint32)
    odd = (stored >> dropped) & np.uint32(1)
    nearest = stored + (np.uint32(1) << (dropped - np.uint32(1))) - np.uint32(1) + odd
    return ((nearest >> dropped) << dropped).view(np.float32)


def operands(shape_x=(7, 30), shape_matrix=(30, 5)):
    rng = np.random.default_rng(0)
    return (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (shape_x, shape_matrix))


def all_products(jaxpr):
    """The precisions of every matrix product and convolution in a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.params["precision"]
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from all_products(inner)


def test_a_float32_product_is_left_alone():
    x, matrix = operands()
    np.testing.assert_array_equal(at_precision(product, "float32")(x, matrix), x @ matrix)


def test_a_bfloat16_product_is_that_of_bfloat16_numbers_added_in_float32():
    x, matrix = operands()
    expected = jnp.matmul(to_bfloat16(x), to_bfloat16(matrix), preferred_element_type=jnp.float32)
    found = at_precision(product, "bfloat16")(x, matrix)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(found - x @ matrix).max() > 1e-3


@pytest.mark.parametrize("name", LOWER)
def test_a_backward_pass_multiplies_rounded_numbers(name):
    x, matrix = operands()
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=(7, 5)), jnp.float32)
    bits = PRECISIONS[name].mantissa_bits
    by_x, by_matrix = jax.vjp(at_precision(product, name), x, matrix)[1](cotangent)
    near_x, near_matrix, near_cotangent = (
        rounded_by_hand(array, bits) for array in (x, matrix, cotangent)
    )
    np.testing.assert_allclose(by_x, near_cotangent @ near_matrix.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_matrix, near_x.T @ near_cotangent, rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(x=st.floats(-(2.0**100), 2.0**100, width=32), name=st.sampled_from(LOWER))
def test_an_operand_is_the_nearest_shorter_number(x, name):
    found = at_precision(lambda x, one: x * one, name)(jnp.float32(x), jnp.float32(1))
    expected = rounded_by_hand(x, PRECISIONS[name].mantissa_bits)
    smallest = np.finfo(np.float32).tiny
    if abs(x) > smallest:  # Below it, processors may flush to zero.
        assert np.float32(found) == expected


@pytest.mark.parametrize("choice", [{"pooling": name} for name in POOLINGS] + [{"head": "gap"}])
def test_a_network_sees_no_more_of_its_kernels_than_the_precision_keeps(choice):
    model = LeNet(**choice, precision="bfloat16")
    params = init_params(model, jax.random.key(0), (32, 32, 1))
    images = jax.random.uniform(jax.random.key(1), (3, 32, 32, 1))
    kernels = traverse_util.path_aware_map(
        lambda path, leaf: jnp.asarray(rounded_by_hand(leaf, 7)) if path[-1] == "kernel" else leaf,
        params,
    )
    shorter = model.apply({"params": kernels}, images)
    np.testing.assert_array_equal(model.apply({"params": params}, images), shorter)
    whole = LeNet(**choice).apply({"params": params}, images)
    assert 1e-5 < np.abs(whole - shorter).max() < 0.1


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
@pytest.mark.parametrize("name", PRECISIONS)
def test_every_product_of_a_step_asks_the_device_for_the_precision(name, convolution):
    model = LeNet(pooling="stride", convolution=convolution, precision=name)
    state = create_train_state(jax.random.key(0), model)
    batch = {"image": jnp.zeros((2, 32, 32, 1)), "label": jnp.zeros(2, int)}
    program = jax.make_jaxpr(train_step)(state, batch, Hyperparameters())
    found = list(all_products(program.jaxpr))
    # c1 and c3, their strided poolings, c5, f6 and output; backward twice each but for c1's images.
    assert len(found) == 3 * 7 - 1
    assert {precision[0] for precision in found} == {IN_PROGRAM[name]}


def test_an_unknown_precision_is_an_error_that_names_those_there_are():
    with pytest.raises(ValueError, match="float32, tensorfloat32, bfloat16"):
        at_precision(product, "float16")
