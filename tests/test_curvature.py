"""Against the paper's recursion, connection by connection, and against second derivatives."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lenet import codes, curvature, layers, losses, model
from lenet.model import LeNet

SHAPE = (16, 16, 1)
WIDTHS = (2, 3, 4, 84)
EXAMPLES = 3


diagonal = jax.jit(curvature.diagonal, static_argnums=(0, 4))


def params_of(network, seed=0):
    params = jax.jit(lambda key: model.init_params(network, key, SHAPE))(jax.random.key(seed))
    keys = iter(jax.random.split(jax.random.key(seed + 1), 100))
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), dict(params)
    )


def batch(seed=5):
    images = jax.random.normal(jax.random.key(seed), (EXAMPLES, *SHAPE))
    return images, jnp.arange(EXAMPLES) * 4


class Unrolled:
    """A layer as the paper counts it: connections (i, j, k), a_i = sum of w_k x_j, x_0 = 1."""

    def __init__(self, connections, weights, outputs):
        self.i, self.j, self.k = np.array(connections).T
        self.weights, self.outputs = np.asarray(weights, np.float64), outputs

    def forward(self, x):
        self.x = np.concatenate([[1.0], x])
        a = np.zeros(self.outputs)
        np.add.at(a, self.i, self.weights[self.k] * self.x[self.j])
        return a

    def backward(self, h):
        """From d2E/da^2 to d2E/dw^2 and d2E/dx^2, equations (20) to (26)."""
        of_weights, of_inputs = np.zeros_like(self.weights), np.zeros_like(self.x)
        np.add.at(of_weights, self.k, h[self.i] * self.x[self.j] ** 2)
        np.add.at(of_inputs, self.j, h[self.i] * self.weights[self.k] ** 2)
        return of_weights, of_inputs[1:]


class Squash:
    def __init__(self, function):
        self.function = function

    def forward(self, a):
        self.slope = np.asarray(jax.vmap(jax.grad(self.function))(jnp.asarray(a)), np.float64)
        return np.asarray(self.function(jnp.asarray(a)), np.float64)

    def backward(self, h):
        return None, self.slope**2 * h


class Greatest:
    def __init__(self, windows, inputs):
        self.windows, self.inputs = np.array(windows), inputs

    def forward(self, x):
        winners = x[self.windows].argmax(axis=1)
        self.winners = self.windows[np.arange(len(self.windows)), winners]
        return x[self.winners]

    def backward(self, h):
        of_inputs = np.zeros(self.inputs)
        np.add.at(of_inputs, self.winners, h)
        return None, of_inputs


def place(maps, side, m, r, c):
    return (m * side + r) * side + c


def convolution(params, in_maps, side, table):
    """Weights in the order 5 5 connection, then biases."""
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    pairs = [*zip(*np.nonzero(table), strict=True)]
    out_side = side - 4
    connections = []
    for out, r, c in np.ndindex(len(bias), out_side, out_side):
        unit = place(len(bias), out_side, out, r, c)
        connections.append((unit, 0, kernel.size + out))
        for number, (source, target) in enumerate(pairs):
            if target == out:
                for a, b in np.ndindex(5, 5):
                    weight = (a * 5 + b) * len(pairs) + number
                    pixel = place(in_maps, side, source, r + a, c + b)
                    connections.append((unit, 1 + pixel, weight))
    weights = np.concatenate([kernel.ravel(), bias])
    return Unrolled(connections, weights, len(bias) * out_side**2), out_side


def windows_of(maps, side):
    half = side // 2
    return [
        [place(maps, side, m, 2 * r + p, 2 * c + q) for p in (0, 1) for q in (0, 1)]
        for m, r, c in np.ndindex(maps, half, half)
    ]


def pooling(kind, params, maps, side):
    windows, half = windows_of(maps, side), side // 2
    units = maps * half**2
    if kind == "max":
        return Greatest(windows, maps * side**2)
    if kind == "average":
        connections = [(u, 1 + x, 0) for u, window in enumerate(windows) for x in window]
        return Unrolled(connections, [1 / 4], units)
    if kind == "subsampling":
        connections = []
        for unit, window in enumerate(windows):
            of_map = unit // half**2
            connections.append((unit, 0, maps + of_map))
            connections += [(unit, 1 + x, of_map) for x in window]
        weights = np.concatenate([params["coefficient"], params["bias"]])
        return Unrolled(connections, weights, units)
    kernel = np.asarray(params["kernel"])
    connections = []
    for unit in range(units):
        out, where = divmod(unit, half**2)
        connections.append((unit, 0, kernel.size + out))
        for source in range(maps):
            for tap, x in enumerate(windows[source * half**2 + where]):
                connections.append((unit, 1 + x, (tap * maps + source) * maps + out))
    return Unrolled(connections, np.concatenate([kernel.ravel(), params["bias"]]), units)


def dense(params):
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    inputs, units = kernel.shape
    connections = [(u, 0, kernel.size + u) for u in range(units)]
    connections += [
        (u, 1 + x, x * units + u) for x, u in itertools.product(range(inputs), range(units))
    ]
    return Unrolled(connections, np.concatenate([kernel.ravel(), bias]), units)


def unrolled_network(network, params):
    """Its layers by name; None where there are no parameters."""
    squash = functools.partial(Squash, layers.ACTIVATIONS[network.activation])
    found, side, in_maps = [], 16, 1
    for conv, pool, maps in (("c1", "s2", network.widths[0]), ("c3", "s4", network.widths[1])):
        table = np.ones((in_maps, maps), bool)
        unrolled, side = convolution(params[conv], in_maps, side, table)
        own = params.get(pool, {})
        found += [(conv, unrolled), (None, squash())]
        found.append((pool if own else None, pooling(network.pooling, own, maps, side)))
        found += [(None, squash())] if own else []
        side, in_maps = side // 2, maps
    if network.head == "gap":
        connections = [(x // side**2, 1 + x, 0) for x in range(in_maps * side**2)]
        found.append((None, Unrolled(connections, [1 / side**2], in_maps)))
        return [*found, ("output", dense(params["output"]))]
    for name in ("c5", "f6"):
        found += [(name, dense(params[name])), (None, squash())]
    return [*found, ("output", dense(params["output"]))] if network.head == "dense" else found


def top_curvature(network, loss, j, top, label):
    """What is known in closed form of the losses at the last trained layer."""
    if network.head != "rbf":
        p = np.exp(top - top.max())
        p /= p.sum()
        return p * (1 - p)
    if loss == "rbf_mse":
        return np.full(84, 2.0)
    flat = codes.BITMAPS.reshape(10, 84)
    y = ((top - flat) ** 2).sum(axis=1)
    odds = np.exp(-np.concatenate([y, [j]]) + y.min())
    p = odds / odds.sum()
    slopes = np.concatenate([2 * (top - flat), np.zeros((1, 84))])
    mean = p @ slopes
    return 2 * p[-1] + p @ slopes**2 - mean**2


@pytest.mark.parametrize(
    ("choices", "loss"),
    [
        ({"pooling": "subsampling", "head": "rbf", "activation": "scaled_tanh"}, "rbf_mse"),
        ({"pooling": "subsampling", "head": "rbf", "activation": "scaled_tanh"}, "rbf_map"),
        ({"pooling": "average", "head": "dense", "activation": "tanh"}, "cross_entropy"),
        ({"pooling": "max", "head": "gap", "activation": "tanh"}, "cross_entropy"),
        ({"pooling": "stride", "head": "dense", "activation": "sigmoid"}, "cross_entropy"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value,
)
def test_it_is_the_papers_recursion_over_every_connection(choices, loss):
    j = 200.0
    network = LeNet(**choices, widths=WIDTHS)
    params, (images, labels) = params_of(network), batch()
    expected = {}
    for image, label in zip(np.asarray(images, np.float64), np.asarray(labels), strict=True):
        unrolled, x = unrolled_network(network, params), image[:, :, 0].ravel()
        for _, layer in unrolled:
            x = layer.forward(x)
        h = top_curvature(network, loss, j, x, label)
        for name, layer in reversed(unrolled):
            of_weights, h = layer.backward(h)
            if name:
                expected[name] = expected.get(name, 0) + of_weights / EXAMPLES
    found = diagonal(network, params, images, labels, loss, j)
    assert set(found) == set(expected)
    for name, values in expected.items():
        order = ("coefficient", "bias") if "coefficient" in found[name] else ("kernel", "bias")
        flat = np.concatenate([np.ravel(found[name][leaf]) for leaf in order])
        np.testing.assert_allclose(flat, values, rtol=2e-3, atol=1e-6 * values.max(), err_msg=name)
        assert (flat >= 0).all()


@pytest.mark.parametrize(
    ("head", "last", "loss"),
    [("dense", "output", "cross_entropy"), ("gap", "output", "cross_entropy")]
    + [("rbf", "f6", loss) for loss in ("rbf_mse", "rbf_map", "cross_entropy")],
)
def test_of_the_last_layer_it_is_the_exact_second_derivative(head, last, loss):
    network = LeNet(activation="identity", head=head, widths=WIDTHS)
    params, (images, labels) = params_of(network), batch()

    def energy(bias):
        moved = {**params, last: {**params[last], "bias": bias}}
        outputs = network.apply({"params": moved}, images)
        return curvature.LOSSES[loss](outputs, labels, 30.0).mean()

    exact = jnp.diagonal(jax.hessian(energy)(params[last]["bias"]))
    found = diagonal(network, params, images, labels, loss, 30.0)[last]["bias"]
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-5 * np.abs(exact).max())


def test_the_network_itself_is_unchanged():
    network = LeNet(pooling="subsampling", widths=WIDTHS)
    params, (images, _) = params_of(network), batch()
    outputs = [
        network.clone(backward=way).apply({"params": params}, images)
        for way in ("gradient", "curvature")
    ]
    np.testing.assert_array_equal(*outputs)


def test_all_convolutions_have_the_same_curvature_with_table_1():
    network = LeNet("tanh", "subsampling", "table1", widths=(6, 16, 4, 84))
    params, (images, labels) = params_of(network), batch()
    *fast, reference = (
        diagonal(network.clone(convolution=name), params, images, labels, "cross_entropy")
        for name in ("polyphase", "patches", "lax")
    )
    for found in fast:
        for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(reference), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    ("head", "units", "loss"),
    [("rbf", 84, "rbf_mse"), ("rbf", 84, "rbf_map"), ("dense", 10, "cross_entropy")],
)
def test_at_the_top_it_is_the_diagonal_of_the_second_derivatives(head, units, loss):
    network = LeNet(head=head)
    top, labels = jax.random.normal(jax.random.key(0), (EXAMPLES, units)), jnp.array([0, 4, 8])

    def energy(of_one, label):
        outputs = network.output_of(of_one[None])
        return losses.LOSSES[loss](outputs, label[None], 100.0, 0.9)[0]

    expected = [jnp.diagonal(jax.hessian(energy)(x, y)) for x, y in zip(top, labels, strict=True)]
    found = curvature.at_the_top(network, top, labels, loss, 100.0, 0.9)
    np.testing.assert_allclose(found, jnp.stack(expected), rtol=1e-3, atol=1e-3)


def test_an_unknown_loss_is_named():
    network = LeNet(widths=WIDTHS)
    with pytest.raises(ValueError, match="loss='mse' is not known; choose one of: cross_entropy"):
        curvature.diagonal(network, params_of(network), *batch(), "mse")
