"""The layers of a LeNet, laid out for speed: the batch last, and pooling windows split by phase.

Inside the network an array of feature maps is `channel height width batch`. With the batch last,
every element-wise operation and every copy runs over long contiguous rows.

A convolution here does not return its maps but their four *phases*: the maps at even and odd rows
and columns, `2 2 channel height/2 width/2 batch`. A 2x2 pooling window is then one element of each
phase, and pooling is an element-wise operation over the two leading axes.

That is also the fast way to compute the convolution. The 2x2 outputs of one window together see a
6x6 patch of the input, so the window is one stride-2 convolution with a 6x6 kernel and 4 x `out`
channels: `kernel` at four shifts, zero elsewhere. Splitting the input into phases as well makes it
a stride-1 convolution of 3x3 taps over 4 x `in` channels:

    y[p, q, o, r, s] = sum_{i, j, a, b, c} k6[p, q, o, i, j, a, b, c] x[a, b, c, r + i, s + j]
    k6[p, q, o, i, j, a, b, c] = kernel[2i + a - p, 2j + b - q, c, o]    (0 outside the kernel)

which is one matrix product of (4 out) x (36 in) with patches that hold 9 copies of the input where
5x5 patches hold 25, cut first by rows and then by columns: the cut's derivative then adds 3 and 3
arrays, not 9. It spends 36/25 of the multiply-adds and is nevertheless about twice as fast on
a CPU, because its patches are small and its matrices are not thin. Its derivatives are products of
the same kind, so it stays fast inside `lax.scan`, and under `vmap` it becomes a batched product.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float, Key

from lenet.backward import BACKWARD
from lenet.precision import at_precision, matmul_precision
from lenet.registry import lookup

Maps = Float[Array, "channel height width batch"]
Phases = Float[Array, "2 2 features half_height half_width batch"]
Kernel = Float[Array, "size size in_channel out_channel"]

KERNEL_SIZE = 5

# By default XLA's CPU compiler drops optimization barriers before it fuses, and `materialize` with
# them. The option names a pass of the CPU compiler alone: elsewhere it changes nothing.
COMPILER_OPTIONS: dict[str, str | bool] = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def scaled_tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """1.7159 tanh(2x/3), the paper's squashing function (appendix A): f(1) = 1, f(-1) = -1."""
    return 1.7159 * jnp.tanh((2 / 3) * x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "tanh": jnp.tanh,
    "scaled_tanh": scaled_tanh,
    "sigmoid": nn.sigmoid,
    "identity": lambda x: x,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "softplus": nn.softplus,
}
# max(f(x)) = f(max(x)) for these, which leaves f a quarter of the elements.
NON_DECREASING = frozenset(ACTIVATIONS) - {"gelu", "silu"}


def activate(
    x: Float[Array, "*shape"], name: str, backward: str = "gradient"
) -> Float[Array, "*shape"]:
    """The named activation, element by element."""
    _, as_function = lookup(BACKWARD, backward, "backward")
    return as_function(lookup(ACTIVATIONS, name, "activation"))(x)


def split_phases(maps: Maps) -> Phases:
    """Maps to their phases; an odd last row or column is dropped, as 2x2 pooling drops it."""
    channel, height, width, batch = maps.shape
    half_height, half_width = height // 2, width // 2
    even = maps[:, : 2 * half_height, : 2 * half_width]
    blocks = even.reshape(channel, half_height, 2, half_width, 2, batch)
    return blocks.transpose(2, 4, 0, 1, 3, 5)


def merge_phases(phases: Phases) -> Maps:
    """Phases back to maps, the inverse of `split_phases`."""
    _, _, channel, half_height, half_width, batch = phases.shape
    blocks = phases.transpose(2, 3, 0, 4, 1, 5)
    return blocks.reshape(channel, 2 * half_height, 2 * half_width, batch)


def materialize(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x`, computed once and stored row by row before anything reads it; so is its cotangent.

    XLA would rather compute it again inside each of its readers, which on a CPU costs more than
    reading it. Takes effect in programs compiled with `COMPILER_OPTIONS`.
    """
    order = Layout(major_to_minor=tuple(range(x.ndim)))
    return lax.optimization_barrier(with_layout_constraint(x, order))


def convolve_polyphase(maps: Maps, kernel: Kernel, bias: Float[Array, "out_channel"]) -> Phases:
    """The phases of the valid cross-correlation of `maps` with `kernel`, as one matrix product.

    An output of odd height or width loses its last row or column, as 2x2 pooling would drop it.

    Raises:
        ValueError: if the kernel's size is even.
    """
    size, _, in_channel, out_channel = kernel.shape
    if size % 2 == 0:
        raise ValueError(f"kernel size {size} is even; polyphase convolution takes odd sizes")
    channel, height, width, batch = maps.shape
    taps = (size + 1) // 2
    out_height, out_width = (height - size + 1) // 2, (width - size + 1) // 2

    moved = [
        jnp.pad(kernel, ((p, 1 - p), (q, 1 - q), (0, 0), (0, 0))) for p in (0, 1) for q in (0, 1)
    ]
    by_tap = jnp.stack(moved).reshape(2, 2, taps, 2, taps, 2, in_channel, out_channel)
    matrix = by_tap.transpose(0, 1, 7, 4, 2, 3, 5, 6).reshape(4 * out_channel, -1)

    used = maps[:, : 2 * (out_height + taps - 1), : 2 * (out_width + taps - 1)]
    phases = materialize(split_phases(used).reshape(4 * channel, out_height + taps - 1, -1, batch))
    rows = materialize(jnp.concatenate([phases[:, i : i + out_height] for i in range(taps)]))
    shifted = [rows[:, :, j : j + out_width] for j in range(taps)]
    product = _affine(matrix, jnp.tile(bias, 4), shifted)
    phases = product.reshape(2, 2, out_channel, out_height, out_width, batch)
    # What follows is computed element by element, in loops over the last axis of what is stored:
    # the examples, or with one example everything at once.
    return materialize(phases) if batch > 1 else phases


def convolve_patches(maps: Maps, kernel: Kernel, bias: Float[Array, "out_channel"]) -> Phases:
    """The same from patches of the kernel's size: less to compute than polyphase, more to copy.

    With few examples in a batch it is faster where the kernels are many, since it takes them as
    they are.
    """
    size, _, _, out_channel = kernel.shape
    _, height, width, batch = maps.shape
    out_height, out_width = height - size + 1, width - size + 1
    matrix = kernel.transpose(3, 1, 0, 2).reshape(out_channel, -1)
    rows = materialize(jnp.concatenate([maps[:, i : i + out_height] for i in range(size)]))
    product = _affine(matrix, bias, [rows[:, :, j : j + out_width] for j in range(size)])
    return split_phases(product.reshape(out_channel, out_height, out_width, batch))


def _affine(
    matrix: Float[Array, "out in"], bias: Float[Array, "out"], shifted: Sequence[Maps]
) -> Float[Array, "out columns"]:
    """Matrix patches + bias as one product: the bias is the weight of one more input, which is 1.

    Its gradient is then a column of the matrix's, and takes no sum over the maps of its own.
    """
    ones = jnp.ones((1, *shifted[0].shape[1:]), matrix.dtype)
    patches = jnp.concatenate([*shifted, materialize(ones)])
    widened = jnp.concatenate([matrix, bias[:, None]], axis=1)
    return widened @ patches.reshape(widened.shape[1], -1)


def convolve_lax(maps: Maps, kernel: Kernel, bias: Float[Array, "out_channel"]) -> Phases:
    """The same by `lax.conv_general_dilated`: the reference to compare with, slow inside a scan."""
    layout = ("CHWN", "HWIO", "CHWN")
    convolved = lax.conv_general_dilated(maps, kernel, (1, 1), "VALID", dimension_numbers=layout)
    return split_phases(convolved + bias[:, None, None, None])


def convolve(maps: Maps, kernel: Kernel, bias: Float[Array, "out_channel"]) -> Phases:
    """The same by the faster: polyphase where its kernels are few beside the patches."""
    size, _, in_channel, out_channel = kernel.shape
    _, height, width, batch = maps.shape
    expanded = 4 * out_channel * in_channel * (size + 1) ** 2
    patches = in_channel * size**2 * (height - size + 1) * (width - size + 1) * batch
    few = 4 * expanded <= patches
    return (convolve_polyphase if few else convolve_patches)(maps, kernel, bias)


CONVOLUTIONS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "auto": convolve,
    "polyphase": convolve_polyphase,
    "patches": convolve_patches,
    "lax": convolve_lax,
}

# Table I of the paper: which of the 6 maps of S2 (rows) feed which of the 16 maps of C3 (columns).
TABLE_1 = np.array(
    [
        [character == "1" for character in row]
        for row in (
            "1000111001111011",
            "1100011100111101",
            "1110001110010111",
            "0111001111001011",
            "0011100111101101",
            "0001110011110111",
        )
    ]
)


def full_connections(in_channel: int, out_channel: int) -> np.ndarray:
    """Every input map feeds every output map."""
    return np.ones((in_channel, out_channel), bool)


def table_1_connections(in_channel: int, out_channel: int) -> np.ndarray:
    """The 60 connections of the paper's Table I.

    Raises:
        ValueError: if the layer does not lead from 6 maps to 16.
    """
    if (in_channel, out_channel) != TABLE_1.shape:
        raise ValueError(
            "connections='table1' leads from 6 maps to 16, not from "
            f"{in_channel} to {out_channel}; keep widths (6, 16, ...) or choose connections='full'"
        )
    return TABLE_1


CONNECTIONS: dict[str, Callable[[int, int], np.ndarray]] = {
    "full": full_connections,
    "table1": table_1_connections,
}


def spread_connections(
    connected: Float[Array, "size size connection"], table: np.ndarray
) -> Kernel:
    """Kernels of the connected pairs, in row order of the table, with zeros for the other pairs.

    As a product with a matrix of zeros and ones, as XLA scatters number by number on a CPU.
    """
    place = np.zeros((table.sum(), table.size), np.float32)
    place[np.arange(len(place)), np.flatnonzero(table)] = 1
    size = connected.shape[0]
    flat = jnp.matmul(connected.reshape(size * size, -1), place, precision="highest")
    return flat.reshape(size, size, *table.shape)


def _uniform(key: Key[Array, ""], shape: tuple[int, ...], bound: Any) -> Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) * bound


def _normal(key: Key[Array, ""], shape: tuple[int, ...], deviation: Any) -> Array:
    # The standard deviation of a normal cut off at two standard deviations is 0.8796.
    return jax.random.truncated_normal(key, -2.0, 2.0, shape) * (deviation / 0.87962566103423978)


# name -> function of (key, shape, fan_in, fan_out); fans broadcast against the shape.
INITIALIZATIONS: dict[str, Callable[..., Array]] = {
    # LeCun et al. 1998, appendix A.
    "uniform_1998": lambda key, shape, fan_in, fan_out: _uniform(key, shape, 2.4 / fan_in),
    # The same with the root of the fan-in: sums of inputs of size 1 then have deviation 1.4.
    "uniform_root_1998": lambda key, shape, fan_in, fan_out: _uniform(
        key, shape, 2.4 / fan_in**0.5
    ),
    # LeCun et al. 1998, "Efficient BackProp", eq. (16); the default of Flax.
    "lecun_normal": lambda key, shape, fan_in, fan_out: _normal(key, shape, fan_in**-0.5),
    # Glorot and Bengio 2010, eq. (16).
    "glorot_uniform": lambda key, shape, fan_in, fan_out: _uniform(
        key, shape, (6 / (fan_in + fan_out)) ** 0.5
    ),
    # He et al. 2015, eq. (10).
    "he_normal": lambda key, shape, fan_in, fan_out: _normal(key, shape, (2 / fan_in) ** 0.5),
    # The default of PyTorch's Linear and Conv2d, which gives the same bound to the biases.
    "torch": lambda key, shape, fan_in, fan_out: _uniform(key, shape, fan_in**-0.5),
}


def initialize_weights(
    key: Key[Array, ""], shape: tuple[int, ...], *, name: str, fan_in: Any, fan_out: Any
) -> Float[Array, "..."]:
    """Initial weights by the named rule; `fan_in` and `fan_out` broadcast against `shape`."""
    rule = lookup(INITIALIZATIONS, name, "initialization")
    return rule(key, shape, np.asarray(fan_in, np.float32), np.asarray(fan_out, np.float32))


# name -> initial coefficients of the paper's subsampling, as a function of (key, shape, name of the
# rule for weights): those of the mean, or drawn as the weights of units with four inputs.
COEFFICIENTS: dict[str, Callable[..., Array]] = {
    "mean": lambda key, shape, name: jnp.full(shape, 1 / 4),
    "drawn": lambda key, shape, name: initialize_weights(
        key, shape, name=name, fan_in=4, fan_out=1
    ),
}


def initialize_biases(
    key: Key[Array, ""], shape: tuple[int, ...], *, name: str, fan_in: Any
) -> Float[Array, "..."]:
    """Initial biases: zero, but for the `torch` rule, which draws them like the weights."""
    if name != "torch":
        return jnp.zeros(shape)
    return initialize_weights(key, shape, name=name, fan_in=fan_in, fan_out=fan_in)


class Convolution(nn.Module):
    """A 5x5 valid convolution with bias: maps in, the phases of its output maps out.

    Parameters: `kernel`, 5 5 in out when fully connected and otherwise 5 5 connection, one 5x5
    kernel for each connected pair of maps in row order of the table; `bias`, out.
    """

    features: int
    connections: str = "full"
    initialization: str = "lecun_normal"
    implementation: str = "auto"
    backward: str = "gradient"
    precision: str = "float32"

    @nn.compact
    def __call__(self, maps: Maps) -> Phases:
        """Returns the phases of the output maps, before any activation."""
        in_channel = maps.shape[0]
        table = lookup(CONNECTIONS, self.connections, "connections")(in_channel, self.features)
        window = (KERNEL_SIZE, KERNEL_SIZE)
        area = math.prod(window)
        rows, columns = np.nonzero(table)
        fan_in, fan_out = area * table.sum(axis=0), area * table.sum(axis=1)
        rule = functools.partial(initialize_weights, name=self.initialization)
        if table.all():
            rule = functools.partial(rule, fan_in=fan_in[0], fan_out=fan_out[0])
            kernel = self.param("kernel", rule, (*window, *table.shape))
        else:
            fans = {"fan_in": fan_in[None, None, columns], "fan_out": fan_out[None, None, rows]}
            rule = functools.partial(rule, **fans)
            connected = self.param("kernel", rule, (*window, len(rows)))
            kernel = spread_connections(connected, table)
        rule = functools.partial(initialize_biases, name=self.initialization, fan_in=fan_in)
        bias = self.param("bias", rule, (self.features,))
        convolve = lookup(CONVOLUTIONS, self.implementation, "convolution")
        as_product, _ = lookup(BACKWARD, self.backward, "backward")
        product = at_precision(lambda x, weights: convolve(x, *weights), self.precision)
        return as_product(product)(maps, (kernel, bias))


class Pooling(nn.Module):
    """The activation of a convolution, and the 2x2 pooling that halves its maps, if any.

    `max`, `average` and `none` (the activation alone, maps not halved) have no parameters.
    `subsampling` is the paper's
    (section II.B): the four inputs are summed, multiplied by a trainable `coefficient`, added to a
    trainable `bias`, and squashed again; where it starts the paper does not say (`COEFFICIENTS`).
    `stride` is a trainable 2x2 convolution with stride 2 that keeps the number of maps, followed by
    the activation (Springenberg et al. 2015).
    """

    kind: str = "max"
    activation: str = "relu"
    initialization: str = "lecun_normal"
    coefficients: str = "mean"
    backward: str = "gradient"
    precision: str = "float32"

    @nn.compact
    def __call__(self, phases: Phases) -> Maps:
        """Activates and pools the phases of a convolution's output."""
        pool = lookup(POOLINGS, self.kind, "pooling")
        return pool(self, phases)

    def activate(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The activation, element by element."""
        return activate(x, self.activation, self.backward)

    def weigh(self, weights: Array, product: Callable[[Array, Array], Array], x: Array) -> Array:
        """`product` of inputs and weights."""
        as_product, _ = lookup(BACKWARD, self.backward, "backward")
        return as_product(product)(x, weights)

    def max(self, phases: Phases) -> Maps:
        """The greatest of the four activations."""
        if self.activation in NON_DECREASING:
            return self.activate(_greatest(phases))
        return _greatest(self.activate(phases))

    def average(self, phases: Phases) -> Maps:
        """The mean of the four activations."""
        return self.weigh(jnp.asarray(1 / 4), _weighted_total, self.activate(phases))

    def none(self, phases: Phases) -> Maps:
        """Every activation, but for an odd last row or column, which pooling would drop too."""
        return merge_phases(self.activate(phases))

    def subsampling(self, phases: Phases) -> Maps:
        """f(coefficient * sum of the four activations + bias)."""
        shape = (phases.shape[2],)
        start = lookup(COEFFICIENTS, self.coefficients, "coefficients")
        rule = functools.partial(start, name=self.initialization)
        coefficient = self.param("coefficient", rule, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        weights = coefficient[:, None, None, None]
        summed = self.weigh(weights, _weighted_total, self.activate(phases))
        return self.activate(summed + bias[:, None, None, None])

    def stride(self, phases: Phases) -> Maps:
        """A strided 2x2 convolution of the activations, activated."""
        channel = phases.shape[2]
        rule = functools.partial(
            initialize_weights,
            name=self.initialization,
            fan_in=4 * channel,
            fan_out=4 * channel,
        )
        kernel = self.param("kernel", rule, (2, 2, channel, channel))
        rule = functools.partial(initialize_biases, name=self.initialization, fan_in=4 * channel)
        bias = self.param("bias", rule, (channel,))
        matrix = kernel.reshape(4 * channel, channel)
        flat = self.activate(phases).reshape(4 * channel, -1)
        strided = self.weigh(matrix, _dense_product(self.precision), flat).reshape(phases.shape[2:])
        return self.activate(strided + bias[:, None, None, None])


POOLINGS: dict[str, Callable[[Pooling, Array], Array]] = {
    "max": Pooling.max,
    "average": Pooling.average,
    "subsampling": Pooling.subsampling,
    "stride": Pooling.stride,
    "none": Pooling.none,
}


@jax.custom_vjp
def _total(phases: Phases) -> Maps:
    # Not .sum(axis=(0, 1)): XLA fuses additions into their neighbours, and reductions it does not.
    return (phases[0, 0] + phases[0, 1]) + (phases[1, 0] + phases[1, 1])


# All four gradients as one array: differentiation would write one for each, mostly zeros, and add.
_total.defvjp(
    lambda phases: (_total(phases), None),
    lambda _, cotangent: (jnp.broadcast_to(cotangent, (2, 2, *cotangent.shape)),),
)


def _weighted_total(phases: Phases, weights: Array) -> Maps:
    return weights * _total(phases)


def _greatest(phases: Phases) -> Maps:
    return _greater(_greater(phases[0, 0], phases[0, 1]), _greater(phases[1, 0], phases[1, 1]))


def _greater(a: Maps, b: Maps) -> Maps:
    # Not jnp.maximum, which splits the gradient of a tie at a cost; PyTorch's goes to the first.
    return jnp.where(a >= b, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _transposed_product(
    x: Float[Array, "in batch"], matrix: Float[Array, "in out"], precision: str
) -> Float[Array, "out batch"]:
    """matrix^T x, at a precision of `PRECISIONS`.

    The product is written so that XLA reads the matrix as it lies in memory, and the gradient by
    the matrix waits for that by x: then the matrix is not read again after its update, which is
    made in place. With one example in a batch, copies of the matrix would cost more than the rest.
    """
    return lax.dot_general(x, matrix, (((0,), (0,)), ((), ()))).T


def _transposed_product_backward(
    precision: str, kept: tuple[Array, Array], cotangent: Float[Array, "out batch"]
) -> tuple[Array, Array]:
    x, matrix = kept
    with matmul_precision(precision):  # This is traced after, and outside of, the product.
        by_x, cotangent = lax.optimization_barrier((matrix @ cotangent, cotangent))
        return by_x, x @ cotangent.T


_transposed_product.defvjp(
    lambda x, matrix, precision: (_transposed_product(x, matrix, precision), (x, matrix)),
    _transposed_product_backward,
)


def _dense_product(precision: str) -> Callable[[Array, Array], Array]:
    return at_precision(lambda x, matrix: _transposed_product(x, matrix, precision), precision)


class Dense(nn.Module):
    """A fully connected layer with bias. Parameters: `kernel`, in out; `bias`, out."""

    features: int
    initialization: str = "lecun_normal"
    backward: str = "gradient"
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "in batch"]) -> Float[Array, "out batch"]:
        """Returns kernel^T x + bias."""
        in_features = x.shape[0]
        rule = functools.partial(
            initialize_weights,
            name=self.initialization,
            fan_in=in_features,
            fan_out=self.features,
        )
        kernel = self.param("kernel", rule, (in_features, self.features))
        rule = functools.partial(initialize_biases, name=self.initialization, fan_in=in_features)
        bias = self.param("bias", rule, (self.features,))
        as_product, _ = lookup(BACKWARD, self.backward, "backward")
        return as_product(_dense_product(self.precision))(x, kernel) + bias[:, None]
