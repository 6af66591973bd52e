"""Looking inside networks while they train: errors, gradients and saturated units, step by step."""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lenet import data, losses, population, presentations, program
from lenet.layers import ACTIVATIONS
from lenet.model import LeNet, hidden_layers
from lenet.program import Images, Member
from lenet.registry import lookup
from lenet.sweep import Population

log = logging.getLogger(__name__)

# A unit is saturated where the slope of its activation is below this share of the greatest.
FLAT = 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """What was seen inside of the members of a population, at some steps of their training.

    Attributes:
        seeds: of the members.
        steps: how many updates had been made.
        error: share of the probed training images that are misclassified.
        gradient: of each layer with weights, the root of the mean square of the gradient of the
            mean loss by them.
        saturated: of each layer with an activation, the share of its units, over units and images,
            whose activation is flat (`FLAT`).
    """

    seeds: tuple[int, ...]
    steps: Int[np.ndarray, " step"]
    error: Float[np.ndarray, "member step"]
    gradient: Mapping[str, Float[np.ndarray, "member step"]]
    saturated: Mapping[str, Float[np.ndarray, "member step"]]

    def steps_to(self, error: float) -> dict[int, int]:
        """The first step at which each seed's error is not above one; twice the last, if never."""
        reached = self.error <= error
        first = np.where(reached.any(1), self.steps[reached.argmax(1)], 2 * self.steps[-1])
        return dict(zip(self.seeds, map(int, first), strict=True))


def flat(x: Float[Array, "*shape"], activation: str) -> Bool[Array, "*shape"]:
    """Where the slope of an activation is below `FLAT` of its greatest, in size."""
    function = lookup(ACTIVATIONS, activation, "activation")
    slope = jax.vmap(jax.grad(lambda each: function(each)))
    greatest = jnp.abs(slope(jnp.linspace(-8.0, 8.0, 1601))).max()
    return (jnp.abs(slope(x.reshape(-1))) < FLAT * greatest).reshape(x.shape)


def probe(
    model: LeNet,
    loss: str,
    params: Any,
    images: Float[Array, "batch height width channel"],
    labels: Int[Array, "batch"],
) -> tuple[Float[Array, ""], dict[str, Array], dict[str, Array]]:
    """What a `Trace` says of one network: error, gradients, saturated shares."""

    def mean_loss(params: Any) -> tuple[Float[Array, ""], tuple[Any, Any]]:
        outputs, captured = model.apply(
            {"params": params}, images, capture_intermediates=True, mutable=["intermediates"]
        )
        found = lookup(losses.LOSSES, loss, "loss")(outputs, labels, 1.0, 1.0)
        return found.mean(), (outputs, captured["intermediates"])

    gradients, (outputs, captured) = jax.grad(mean_loss, has_aux=True)(params)
    by_layer = {
        layer: jnp.sqrt(jnp.mean(leaves["kernel"] ** 2))
        for layer, leaves in gradients.items()
        if "kernel" in leaves
    }
    activated = ("c1", "c3", *hidden_layers(model))
    shares = {
        layer: flat(captured[layer]["__call__"][0], model.activation).mean() for layer in activated
    }
    return (outputs.argmax(-1) != labels).mean(), by_layer, shares


def trace(
    trials: Population, dataset: data.Dataset, *, every: int, examples: int, last: int
) -> Trace:
    """Trains trials as a run would, and looks into them.

    Args:
        trials: a population: they differ in numbers alone.
        dataset: with the images they are trained on.
        every: updates from one look to the next; the first is before the first update.
        examples: the first so many training images are looked at.
        last: the number of updates to stop after, or those of the whole training if fewer.
    """
    config = trials[0].config
    affine = data.normalization(config.normalization, dataset.train_images)
    mesh = program.mesh_for(len(trials))
    images = program.place(data.pad(dataset.train_images), dataset.train_labels, mesh)
    recipe = population.recipe_of(config, dataset.num_classes, len(dataset.train_labels), affine)
    filled = population.padded(trials, mesh)
    compiled = program.compile_program(recipe, len(filled), images, mesh)
    numbers = program.numbers_of([trial.fields for trial in filled])
    members: Member = compiled.create(*program.place_members(numbers, mesh))

    @functools.partial(jax.jit, static_argnames="count")
    def look(params: Any, images: Images, count: int) -> Any:
        shown = presentations.normalized(images, jnp.arange(count), affine)
        one = functools.partial(probe, recipe.model, recipe.loss)
        # One after another: what all of them need at once would be much.
        return jax.lax.map(lambda each: one(each, shown, images.labels[:count]), params)

    looks, steps = [], []
    title = population.title_of(trials)
    for epoch in range(recipe.num_epochs):
        log.info("looking into %s, epoch %d of %d", title, epoch + 1, recipe.num_epochs)
        members, orders = compiled.start_epoch(members, images, np.int32(epoch))
        for start in range(0, recipe.steps_per_epoch, every):
            done = epoch * recipe.steps_per_epoch + start
            if done <= last:
                looks.append(jax.device_get(look(members.state.params, images, examples)))
                steps.append(done)
            stop = min(start + every, recipe.steps_per_epoch)
            if done < last:
                members = compiled.advance(members, orders, images, np.int32(start), np.int32(stop))
    return _traced([trial.seed for trial in trials], steps, looks)


def _traced(seeds: Sequence[int], steps: Sequence[int], looks: Sequence[Any]) -> Trace:
    error, gradient, saturated = jax.tree.map(
        lambda *each: np.stack(each, axis=1)[: len(seeds)], *looks
    )
    return Trace(tuple(seeds), np.array(steps, int), error, gradient, saturated)
