"""Losses: what training minimises, per example."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Int


def cross_entropy(
    outputs: Float[Array, "batch classes"], labels: Int[Array, "batch"]
) -> Float[Array, "batch"]:
    """-log softmax(outputs)[label], in nats."""
    picked = (outputs * jax.nn.one_hot(labels, outputs.shape[-1])).sum(axis=-1)
    return jax.nn.logsumexp(outputs, axis=-1) - picked


LOSSES: dict[str, Callable[[Array, Array], Array]] = {"cross_entropy": cross_entropy}
