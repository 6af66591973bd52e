"""Optimizers and learning-rate schedules, made from numbers that may be traced.

An optimizer is built anew inside every traced step, from the learning rate and the other
hyperparameters of that step. So these are inputs of the compiled program, one per member of a
population, and the optimizer's state holds no copy of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from lenet.distortions import Distortion

Scalar = int | float | Float[Array, ""]


class Hyperparameters(flax.struct.PyTreeNode):
    """The numbers of a training that may differ between the members of a population.

    Attributes:
        learning_rate: before the schedule.
        momentum: used by `momentum`.
        weight_decay: added to the gradient as weight_decay * params (an L2 penalty), except by
            `adamw`, where it is decoupled (Loshchilov and Hutter 2019).
        damping: mu, added to the curvature that `sdlm` divides by.
        curvature_memory: the share of its running average that the curvature keeps at an estimate.
        rbf_j: j of the loss `rbf_map`.
        rbf_scale: what the distances count in `rbf_mse` and `rbf_map`.
        translation: of distorted images, in pixels along each axis at most.
        scaling: of distorted images, the logarithm of the factor at most.
        squeezing: likewise, one axis by the factor and the other by its inverse.
        shear: of distorted images, pixels sideways for each pixel up or down at most.
    """

    # Any, since under vmap and in jax.eval_shape the leaves are no scalars.
    learning_rate: Any = 1e-3
    momentum: Any = 0.9
    weight_decay: Any = 0.0
    damping: Any = 0.02
    curvature_memory: Any = 0.0
    rbf_j: Any = 1.0
    rbf_scale: Any = 1.0
    translation: Any = 0.0
    scaling: Any = 0.0
    squeezing: Any = 0.0
    shear: Any = 0.0

    @property
    def of_loss(self) -> tuple[Any, Any]:
        """The arguments of a loss beside the outputs and the labels."""
        return self.rbf_j, self.rbf_scale

    @property
    def distortion(self) -> Distortion:
        """The ranges that distortions are drawn from."""
        return Distortion(
            self.translation, self.translation, self.scaling, self.squeezing, self.shear
        )


class SdlmState(NamedTuple):
    """State of `sdlm`: the curvature h in force, a tree like the parameters."""

    curvature: Any


def sdlm(learning_rate: Scalar, damping: Scalar = 0.02) -> optax.GradientTransformationExtraArgs:
    """Stochastic diagonal Levenberg-Marquardt (LeCun et al. 1998, appendix C).

        w <- w - learning_rate / (damping + h) dE/dw

    with h the curvature of each parameter, estimated now and then (`curvature.diagonal`, or any
    other estimate that is not negative) and held fixed between. Give it to `update` as the extra
    argument `curvature` whenever there is a new one; before the first, h is 0.

    Args:
        learning_rate: the paper's eta.
        damping: the paper's mu, which bounds the steps where h is small.
    """

    def init(params: Any) -> SdlmState:
        return SdlmState(jax.tree.map(jnp.zeros_like, params))

    def update(
        updates: Any, state: SdlmState, params: Any = None, *, curvature: Any = None, **extra: Any
    ) -> tuple[Any, SdlmState]:
        held = state.curvature if curvature is None else curvature
        # The reciprocal is the same in every step until there is a new estimate, and XLA takes what
        # does not change out of a loop.
        steps = jax.tree.map(lambda g, h: -learning_rate * (1 / (damping + h)) * g, updates, held)
        return steps, SdlmState(held)

    return optax.GradientTransformationExtraArgs(init, update)


def _sdlm(rate: Scalar, numbers: Hyperparameters) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(numbers.weight_decay), sdlm(rate, numbers.damping))


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
    "sdlm": _sdlm,
}

WARMUP = 0.1


def _cosine(progress: Float[Array, ""]) -> Float[Array, ""]:
    return 0.5 * (1 + jnp.cos(jnp.pi * progress))


def _warmup_cosine(progress: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.where(
        progress < WARMUP, progress / WARMUP, _cosine((progress - WARMUP) / (1 - WARMUP))
    )


# eta of the paper's 20 passes, as a share of the first.
_PASSES_1998 = np.repeat([1.0, 0.4, 0.2, 0.1, 0.02], [2, 3, 3, 4, 8])


def _passes_1998(progress: Float[Array, ""]) -> Float[Array, ""]:
    passes = len(_PASSES_1998)
    return jnp.asarray(_PASSES_1998)[jnp.clip(progress * passes, 0, passes - 1).astype(int)]


# name -> factor on the learning rate as a function of progress through training, 0 to 1.
SCHEDULES: dict[str, Callable[[Array], Array]] = {
    "constant": jnp.ones_like,
    "linear": lambda progress: 1 - progress,
    "cosine": _cosine,
    "warmup_cosine": _warmup_cosine,
    "passes_1998": _passes_1998,
}
