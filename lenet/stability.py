"""How far a step of the optimizer `sdlm` goes on the pattern that it is made for.

A step on one pattern, with a rate eps_k of its own for each parameter w_k, changes what the network
makes of that pattern. Where the loss is quadratic the error that is left along an eigenvector is
1 - gain times what it was, with the eigenvalues of

    H^(1/2) K H^(1/2),    K = sum_k eps_k J_k J_k^T

as gains: J is the Jacobian of the last layer with parameters by the parameters, J_k its column of
w_k, H the second derivative of the loss by that layer. They are those of D^(1/2) J^T H J D^(1/2)
too, D = diag(eps), which is the Gauss-Newton Hessian J^T H J in the coordinates in which all rates
are 1. Up to 1 a step comes nearer, at 1 it arrives, and beyond BOUND it ends further off than it
began, on the other side. One rate for all of them is the largest eigenvalue of the Hessian against
2 / eps (LeCun, Bottou, Orr and Mueller 1998, "Efficient BackProp", section 5.1). For loss (8) H is
2, so that it is the largest eigenvalue of 2 sum_k eps_k J_k J_k^T.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from lenet import layers
from lenet.losses import LOSSES
from lenet.model import LeNet, hidden_layers
from lenet.registry import lookup

BOUND = 2.0
SQUARINGS = 12


def step_gain(
    model: LeNet,
    params: Any,
    steps: Any,
    image: Float[Array, "height width channel"],
    label: Int[Array, ""],
    loss: str,
    rbf_j: Any = 0.0,
    rbf_scale: Any = 1.0,
) -> Float[Array, ""]:
    """The largest gain of a step of gradient descent on one pattern; stable up to BOUND.

    Of the Hessian it takes the Gauss-Newton part, as the optimizer does (appendix C): the second
    derivatives of the network are left out. That of the loss is exact. A weight that is used in
    many places is one parameter with one rate, and its column of J the sum over them. A penalty on
    the weights does not count.

    Args:
        model: the network.
        params: its parameters.
        steps: the rate of each parameter, a tree like `params`.
        image: normalised.
        label: its class.
        loss: a name in `losses.LOSSES`.
        rbf_j: of the loss.
        rbf_scale: of the loss.

    Raises:
        ValueError: if `loss` is unknown.
    """
    top, reach = step_reach(model, params, steps, image)
    return largest_eigenvalue(reach @ loss_curvature(model, top, label, loss, rbf_j, rbf_scale))


def largest_eigenvalue(matrix: Float[Array, "units units"]) -> Float[Array, ""]:
    """The largest eigenvalue of a product of two matrices that have no negative one.

    It is tr A^(p+1) / tr A^p, by squaring p = 2^SQUARINGS: too low by the factor units^(-1/p) at
    most, 0.1 % for 84. Libraries that decompose the matrix take threads for it, and wait for them.
    """

    def scaled(power: Float[Array, "units units"]) -> Float[Array, "units units"]:
        trace = jnp.trace(power)
        return jnp.where(trace <= 0, 0.0, power / trace)

    power = lax.fori_loop(0, SQUARINGS, lambda _, power: scaled(power @ power), scaled(matrix))
    return jnp.trace(power @ matrix)


def step_gains(
    model: LeNet,
    params: Any,
    steps: Any,
    images: Float[Array, "batch height width channel"],
    labels: Int[Array, "batch"],
    loss: str,
    rbf_j: Any = 0.0,
    rbf_scale: Any = 1.0,
    at_once: int = 1,
) -> Float[Array, "batch"]:
    """`step_gain` of each of many patterns, `at_once` of them together."""

    def gain(
        pattern: tuple[Float[Array, "height width channel"], Int[Array, ""]],
    ) -> Float[Array, ""]:
        return step_gain(model, params, steps, *pattern, loss, rbf_j, rbf_scale)

    return lax.map(gain, (images, labels), batch_size=None if at_once == 1 else at_once)


def step_reach(
    model: LeNet, params: Any, steps: Any, image: Float[Array, "height width channel"]
) -> tuple[Float[Array, "units"], Float[Array, "units units"]]:
    """The units of the last layer with parameters, and K = sum_k eps_k J_k J_k^T.

    K says how far the units go in one step, by the gradient of the loss by them.
    """
    # A weight of a fully connected layer is used once: its column of J is an input times the
    # cotangent of a unit, which an offset of the unit has too. So K needs those few, not J itself,
    # which would be 84 x 60,000 and take several times as long.
    connected = [name for name in (*hidden_layers(model), "output") if name in params]
    rest = {name: own for name, own in params.items() if name not in connected}
    still = {name: jnp.zeros_like(params[name]["bias"]) for name in connected}

    def units(
        rest: Any, offsets: Mapping[str, Array]
    ) -> tuple[Float[Array, "units"], dict[str, Array]]:
        inputs: dict[str, Array] = {}

        def add_offset(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            outputs = call(*args, **kwargs)
            if isinstance(context.module, layers.Dense) and context.method_name == "__call__":
                name = str(context.module.name)
                inputs[name] = args[0][:, 0]
                outputs = outputs + offsets[name][:, None]
            return outputs

        with nn.intercept_methods(add_offset):
            top = model.apply({"params": params | rest}, image[None], trained_part=True)
        assert isinstance(top, jax.Array)
        return top[0], inputs

    top, pull_back, inputs = jax.vjp(units, rest, still, has_aux=True)
    jacobian = jax.vmap(pull_back)(jnp.eye(len(top)))
    by_offset = {
        name: steps[name]["bias"] + inputs[name] ** 2 @ steps[name]["kernel"] for name in connected
    }
    rates = ({name: steps[name] for name in rest}, by_offset)
    reach = jnp.zeros((len(top), len(top)))
    for rate, columns in zip(jax.tree.leaves(rates), jax.tree.leaves(jacobian), strict=True):
        rows = columns.reshape(len(top), -1)
        reach += (rows * rate.reshape(1, -1)) @ rows.T
    return top, reach


def loss_curvature(
    model: LeNet,
    top: Float[Array, "units"],
    label: Int[Array, ""],
    loss: str,
    rbf_j: Any = 0.0,
    rbf_scale: Any = 1.0,
) -> Float[Array, "units units"]:
    """H, the second derivative of one pattern's loss by the last layer with parameters.

    Raises:
        ValueError: if `loss` is unknown.
    """
    per_example = lookup(LOSSES, loss, "loss")

    def energy(top: Float[Array, "units"]) -> Float[Array, ""]:
        return per_example(model.output_of(top[None]), label[None], rbf_j, rbf_scale)[0]

    return jax.hessian(energy)(top)


def spread(gains: Float[np.ndarray, " patterns"]) -> dict[str, int | float | None]:
    """How gains are spread over patterns, of those that are finite.

    Returns:
        `patterns`, their number; `beyond`, the share of them above BOUND; `median`, `q95` and
        `max`. None where nothing is finite.
    """
    known = gains[np.isfinite(gains)].astype(np.float64)
    if not len(known):
        return {"patterns": 0, **dict.fromkeys(("beyond", "median", "q95", "max"))}
    median, q95, most = map(float, np.quantile(known, (0.5, 0.95, 1.0)))
    beyond = float((known > BOUND).mean())
    return {"patterns": len(known), "beyond": beyond, "median": median, "q95": q95, "max": most}


def marks(epoch: int, steps: int) -> tuple[int, ...]:
    """The steps of an epoch, counted from 0, before which the gain is measured.

    The first of each; of the first two, in which the paper's rate is greatest, also step number 3,
    10, 30, 100, 300, ...
    """
    powers = range(len(str(steps)) if epoch < 2 else 1)
    digits = (1, 3) if epoch < 2 else (1,)
    numbers = [digit * 10**power for power in powers for digit in digits]
    return tuple(number - 1 for number in numbers if number <= steps)
