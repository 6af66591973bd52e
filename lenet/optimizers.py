"""Optimizers and learning-rate schedules, made from numbers that may be traced.

An optimizer is built anew inside every traced step, from the learning rate and the other
hyperparameters of that step. So these are inputs of the compiled program, one per member of a
population, and the optimizer's state holds no copy of them.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Scalar = int | float | Float[Array, ""]


class Hyperparameters(flax.struct.PyTreeNode):
    """The numbers of an optimizer that may differ between the members of a population.

    Attributes:
        learning_rate: before the schedule.
        momentum: used by `momentum`.
        weight_decay: added to the gradient as weight_decay * params (an L2 penalty), except by
            `adamw`, where it is decoupled (Loshchilov and Hutter 2019).
    """

    # Any, since under vmap and in jax.eval_shape the leaves are no scalars.
    learning_rate: Any = 1e-3
    momentum: Any = 0.9
    weight_decay: Any = 0.0


def _sgd(rate: Scalar, numbers: Hyperparameters) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(numbers.weight_decay), optax.sgd(rate))


def _momentum(rate: Scalar, numbers: Hyperparameters) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(numbers.weight_decay),
        optax.sgd(rate, momentum=numbers.momentum),
    )


def _adam(rate: Scalar, numbers: Hyperparameters) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(numbers.weight_decay), optax.adam(rate))


def _adamw(rate: Scalar, numbers: Hyperparameters) -> optax.GradientTransformation:
    return optax.adamw(rate, weight_decay=numbers.weight_decay)


# name -> function of (scheduled learning rate, hyperparameters).
OPTIMIZERS: dict[str, Callable[[Scalar, Hyperparameters], optax.GradientTransformation]] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "adam": _adam,
    "adamw": _adamw,
}

WARMUP = 0.1


def _cosine(progress: Float[Array, ""]) -> Float[Array, ""]:
    return 0.5 * (1 + jnp.cos(jnp.pi * progress))


def _warmup_cosine(progress: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.where(
        progress < WARMUP, progress / WARMUP, _cosine((progress - WARMUP) / (1 - WARMUP))
    )


# name -> factor on the learning rate as a function of progress through training, 0 to 1.
SCHEDULES: dict[str, Callable[[Array], Array]] = {
    "constant": jnp.ones_like,
    "linear": lambda progress: 1 - progress,
    "cosine": _cosine,
    "warmup_cosine": _warmup_cosine,
}
