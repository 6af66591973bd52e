"""The diagonal of the second derivatives that the paper's optimizer divides by (appendix C).

    h = diagonal(model, params, images, labels, "rbf_map", rbf_j=1.0)

`backward.py` has the recursion; what is left is to begin it, at the last layer with parameters.
There the diagonal is exact, whatever the loss.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lenet import codes
from lenet.losses import LOSSES
from lenet.model import LeNet
from lenet.registry import lookup


def diagonal(
    model: LeNet,
    params: Any,
    images: Float[Array, "batch height width channel"],
    labels: Int[Array, "batch"],
    loss: str,
    rbf_j: Any = 0.0,
    rbf_scale: Any = 1.0,
) -> Any:
    """d2E/dw2 of every parameter by the Gauss-Newton recursion, the mean over the examples.

    Where connections share a parameter it is the sum over them, each taken by itself as in the
    paper: not the second derivative by the shared parameter.

    Args:
        model: the network.
        params: its parameters.
        images: normalised.
        labels: their classes.
        loss: a name in `losses.LOSSES`.
        rbf_j: of the loss.
        rbf_scale: of the loss.

    Returns:
        A tree like `params`; nothing in it is negative.

    Raises:
        ValueError: if `loss` is unknown.
    """
    squaring = model.clone(backward="curvature")

    def trained_part(params: Any) -> Float[Array, "batch units"]:
        top = squaring.apply({"params": params}, images, trained_part=True)
        assert isinstance(top, jax.Array)
        return top

    top, pull_back = jax.vjp(trained_part, params)
    return pull_back(at_the_top(model, top, labels, loss, rbf_j, rbf_scale) / len(labels))[0]


def at_the_top(
    model: LeNet,
    top: Float[Array, "batch units"],
    labels: Int[Array, "batch"],
    loss: str,
    rbf_j: Any = 0.0,
    rbf_scale: Any = 1.0,
) -> Float[Array, "batch units"]:
    """The diagonal of each example's loss by the outputs of the last layer with parameters.

    Raises:
        ValueError: if `loss` is unknown.
    """
    per_example = lookup(LOSSES, loss, "loss")

    def energy(outputs: Float[Array, "classes"], label: Int[Array, ""]) -> Float[Array, ""]:
        return per_example(outputs[None], label[None], rbf_j, rbf_scale)[0]

    outputs = model.output_of(top)
    by_outputs = jax.vmap(jax.hessian(energy))(outputs, labels)
    if model.head == "rbf":
        # Each output is a sum over units, so that it has no mixed second derivatives.
        slopes, bends = codes.derivatives(top, model.classes)
        gradients = jax.vmap(jax.grad(energy))(outputs, labels)
        mixed = ((by_outputs @ slopes) * slopes).sum(axis=1)
        found = mixed + bends * gradients.sum(axis=1, keepdims=True)
    else:
        found = jnp.diagonal(by_outputs, axis1=1, axis2=2)
    # None of the losses curves downwards; rounding may.
    return jnp.maximum(found, 0)
