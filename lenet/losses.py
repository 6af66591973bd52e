"""Losses: what training minimises, per example."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(
    outputs: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
    rbf_j: Any = 0.0,
    rbf_scale: Any = 1.0,
) -> Float[Array, "batch"]:
    """-log softmax(outputs)[label], in nats."""
    return jax.nn.logsumexp(outputs, axis=-1) - _picked(outputs, labels)


def rbf_mse(
    outputs: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
    rbf_j: Any = 0.0,
    rbf_scale: Any = 1.0,
) -> Float[Array, "batch"]:
    """The squared distance to the code of the label: equation (8), with outputs = -distances."""
    return -rbf_scale * _picked(outputs, labels)


def rbf_map(
    outputs: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
    rbf_j: Any = 0.0,
    rbf_scale: Any = 1.0,
) -> Float[Array, "batch"]:
    """Equation (9): y_label + log(exp(-j) + sum_i exp(-y_i)), with outputs = -y.

    The term of `rbf_j` is a class of rubbish at that distance from every input. It ends the gain
    from pushing wrong codes away. The distances count `rbf_scale` times.
    """
    outputs = rbf_scale * outputs
    rubbish = jnp.full((*outputs.shape[:-1], 1), -rbf_j)
    every = jnp.concatenate([outputs, rubbish], axis=-1)
    return jax.nn.logsumexp(every, axis=-1) - _picked(outputs, labels)


def _picked(
    outputs: Float[Array, "batch classes"], labels: Int[Array, "batch"]
) -> Float[Array, "batch"]:
    return (outputs * jax.nn.one_hot(labels, outputs.shape[-1])).sum(axis=-1)


# name -> function of (outputs, labels, rbf_j, rbf_scale), per example.
LOSSES: dict[str, Callable[..., Array]] = {
    "cross_entropy": cross_entropy,
    "rbf_mse": rbf_mse,
    "rbf_map": rbf_map,
}
# Those of distances to codes, which only head="rbf" gives.
OF_DISTANCES = ("rbf_mse", "rbf_map")
