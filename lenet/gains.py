"""How far the steps of a population in training go, always on the same training examples."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from lenet import presentations, processes, stability
from lenet import program as programs
from lenet.layers import COMPILER_OPTIONS
from lenet.program import MEMBER, Images, Member, Program, Recipe
from lenet.train import rates

# Training examples, and of them how many are computed together where that is faster.
EXAMPLES = 100
AT_ONCE = 25

Spread = dict[str, int | float | None]


def measured(recipe: Recipe, epoch: int) -> tuple[int, ...]:
    """The steps of an epoch before which the gain is measured: none if there is no curvature."""
    if recipe.optimizer != "sdlm":
        return ()
    return stability.marks(epoch, recipe.steps_per_epoch)


def measure_member(
    recipe: Recipe, at_once: int, member: Member, images: Images
) -> Float[Array, "pattern"]:
    """The gain that the member's next step would have on each of EXAMPLES patterns.

    They are spread evenly over the training examples, and neither distorted nor drawn.
    """
    count = min(EXAMPLES, recipe.train_examples)
    chosen = jnp.arange(count) * recipe.train_examples // count
    state, numbers = member.state, member.hyperparameters
    return stability.step_gains(
        state.model,
        state.params,
        rates(state, numbers),
        presentations.normalized(images, chosen, recipe.affine),
        images.labels[chosen],
        state.loss,
        *numbers.of_loss,
        at_once,
    )


def measurer(program: Program) -> Callable[[Member, Images], list[Spread]]:
    """A function that says of each member how its gains are spread, as `stability.spread` does.

    It is compiled when it is first called. The members are read and not consumed.
    """
    on_cpu = program.mesh.devices.flat[0].platform == "cpu"
    one = functools.partial(measure_member, program.recipe, 1 if on_cpu else AT_ONCE)
    each = programs.map_members(one, (True, False), 1)
    per_member = PartitionSpec(MEMBER)
    spread: Any = jax.jit(
        jax.shard_map(
            each,
            mesh=program.mesh,
            in_specs=(per_member, PartitionSpec()),
            out_specs=per_member,
            check_vma=False,
        ),
        compiler_options=COMPILER_OPTIONS,
    )

    def measure(members: Member, images: Images) -> list[Spread]:
        return [stability.spread(gains) for gains in processes.gather(spread(members, images))]

    return measure
