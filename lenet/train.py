"""Training and evaluating ONE model: pure functions of arrays, to be jitted and vmapped.

model = LeNet()
state = create_train_state(jax.random.key(0), model)
state, metrics = jax.jit(train_step)(state, {"image": images, "label": labels}, Hyperparameters())
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Key

from lenet import curvature
from lenet.losses import LOSSES
from lenet.model import LeNet, check_layers, init_params
from lenet.optimizers import OPTIMIZERS, SCHEDULES, Hyperparameters
from lenet.registry import lookup

Batch = Mapping[str, Array]


class TrainState(flax.struct.PyTreeNode):
    """A model in training.

    Attributes:
        step: updates made so far, Int[Array, ""].
        params: the model's parameters.
        opt_state: the optimizer's state.
        model: the network (static).
        optimizer: a name in `optimizers.OPTIMIZERS` (static).
        schedule: a name in `optimizers.SCHEDULES` (static).
        loss: a name in `losses.LOSSES` (static).
        total_steps: updates in the whole training, the schedule's length (static).
        frozen: the layers that keep their parameters (static).
    """

    # Any, since under vmap and in jax.eval_shape the leaves are no arrays of these shapes.
    step: Any
    params: Any
    opt_state: Any
    model: LeNet = flax.struct.field(pytree_node=False)
    optimizer: str = flax.struct.field(pytree_node=False)
    schedule: str = flax.struct.field(pytree_node=False)
    loss: str = flax.struct.field(pytree_node=False)
    total_steps: int = flax.struct.field(pytree_node=False)
    frozen: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())


def create_train_state(
    key: Key[Array, ""],
    model: LeNet,
    image_shape: tuple[int, int, int] = (32, 32, 1),
    *,
    optimizer: str = "adam",
    schedule: str = "constant",
    loss: str = "cross_entropy",
    total_steps: int = 1,
    frozen: tuple[str, ...] = (),
) -> TrainState:
    """A model with initial parameters, before its first step.

    Raises:
        ValueError: if `optimizer`, `schedule` or `loss` is unknown, `total_steps` is below 1, or
            `frozen` names no layer.
    """
    lookup(SCHEDULES, schedule, "schedule")
    lookup(LOSSES, loss, "loss")
    if total_steps < 1:
        raise ValueError(f"total_steps={total_steps} must be at least 1")
    params = init_params(model, key, image_shape)
    check_layers(model, frozen, "frozen")
    transform = lookup(OPTIMIZERS, optimizer, "optimizer")(0.0, Hyperparameters())
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=transform.init(params),
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        loss=loss,
        total_steps=total_steps,
        frozen=frozen,
    )


def scheduled_rate(state: TrainState, hyperparameters: Hyperparameters) -> Float[Array, ""]:
    """The learning rate of the next step."""
    progress = state.step / state.total_steps
    return hyperparameters.learning_rate * SCHEDULES[state.schedule](progress)


def _outputs(
    model: LeNet, params: Any, batch: Batch, dropout: Key[Array, ""] | None = None
) -> Float[Array, "batch classes"]:
    rngs = None if dropout is None else {"dropout": dropout}
    outputs = model.apply({"params": params}, batch["image"], rngs=rngs)
    assert isinstance(outputs, jax.Array)
    return outputs


def train_step(
    state: TrainState,
    batch: Batch,
    hyperparameters: Hyperparameters,
    dropout: Key[Array, ""] | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One update on the mean loss of a batch.

    Args:
        state: the model before the step.
        batch: `image`, Float "batch height width channel", normalised; `label`, Int "batch"; and
            optionally `mask`, Float "batch", 0 for examples that are only padding.
        hyperparameters: numbers of the optimizer, traced or not.
        dropout: draws the units that the model's dropout takes out; without it none is.

    Returns:
        The model after the step, and sums over the batch as it was before it: `loss` (nats),
        `errors` and `examples`.
    """
    mask = batch.get("mask", jnp.ones(batch["label"].shape))
    examples = mask.sum()
    kept = {layer: state.params[layer] for layer in state.frozen if layer in state.params}

    def mean_loss(params: Any) -> tuple[Float[Array, ""], dict[str, Array]]:
        held = {layer: lax.stop_gradient(params[layer]) for layer in kept}
        outputs = _outputs(state.model, params | held, batch, dropout)
        losses = LOSSES[state.loss](outputs, batch["label"], *hyperparameters.of_loss) * mask
        wrong = (outputs.argmax(axis=-1) != batch["label"]) * mask
        sums = {"loss": losses.sum(), "errors": wrong.sum(), "examples": examples}
        return losses.sum() / examples, sums

    gradients, metrics = jax.grad(mean_loss, has_aux=True)(state.params)
    rate = scheduled_rate(state, hyperparameters)
    transform = OPTIMIZERS[state.optimizer](rate, hyperparameters)
    updates, opt_state = transform.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params |= kept
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics


def refresh_curvature(
    state: TrainState, batch: Batch, hyperparameters: Hyperparameters
) -> TrainState:
    """Estimates anew, on a batch, the curvature that the optimizer `sdlm` divides by.

    It becomes the running average of the estimates so far: `curvature_memory` of the average
    before, and the rest of the new one ("Efficient BackProp", section 7.1).

    Args:
        state: a model whose optimizer is `sdlm`.
        batch: `image` and `label`, as for `train_step`; a `mask` is not heeded.
        hyperparameters: those of the loss count.
    """
    found = curvature.diagonal(
        state.model,
        state.params,
        batch["image"],
        batch["label"],
        state.loss,
        *hyperparameters.of_loss,
    )
    # The first estimate has nothing to be averaged with.
    kept = jnp.where(state.step == 0, 0.0, hyperparameters.curvature_memory)
    average = jax.tree.map(
        lambda old, new: kept * old + (1 - kept) * new,
        optax.tree.get(state.opt_state, "curvature"),
        found,
    )
    return state.replace(opt_state=optax.tree.set(state.opt_state, curvature=average))


def rates(state: TrainState, hyperparameters: Hyperparameters) -> Any:
    """Of each parameter the rate of the next step of `sdlm`, 0 where it is frozen."""
    rate = scheduled_rate(state, hyperparameters)
    found = jax.tree.map(
        lambda curvature: rate / (hyperparameters.damping + curvature),
        optax.tree.get(state.opt_state, "curvature"),
    )
    held = {layer: found[layer] for layer in state.frozen if layer in found}
    return found | jax.tree.map(jnp.zeros_like, held)


def eval_step(
    state: TrainState, batch: Batch, hyperparameters: Hyperparameters | None = None
) -> dict[str, Array]:
    """What a model says of each example of a batch.

    Args:
        state: the model.
        batch: `image` and `label`, as for `train_step`.
        hyperparameters: those of the loss count; their defaults if there are none.

    Returns:
        `loss`, `prediction` (class) and `probability` (softmax of the predicted class), each
        of shape "batch".
    """
    outputs = _outputs(state.model, state.params, batch)
    numbers = hyperparameters or Hyperparameters()
    return {
        "loss": LOSSES[state.loss](outputs, batch["label"], *numbers.of_loss),
        "prediction": outputs.argmax(axis=-1),
        "probability": jax.nn.softmax(outputs).max(axis=-1),
    }
