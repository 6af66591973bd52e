"""Many models as one compiled program: the one-model steps, mapped over members.

A population is a set of trials that differ only in numbers. Everything that follows is written for
ONE member and mapped over all of them, so that a single run is simply a population of one. The
images lie on the device once, as uint8, in the order training, validation, test.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from lenet import data as datasets
from lenet import memory, presentations, processes
from lenet.layers import COMPILER_OPTIONS
from lenet.model import LeNet
from lenet.optimizers import Hyperparameters
from lenet.presentations import CURVATURE, DROPOUT, INIT, ORDER, Images, stream_key
from lenet.train import (
    TrainState,
    create_train_state,
    eval_step,
    refresh_curvature,
    scheduled_rate,
    train_step,
)

MEMBER = "member"
EVALUATION_BATCH = 250
EVALUATION_BLOCK = 8 * EVALUATION_BATCH


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is compiled into a population's program: all of a config but its traced numbers."""

    model: LeNet
    optimizer: str
    schedule: str
    loss: str
    batch_size: int
    num_epochs: int
    train_examples: int
    affine: datasets.Affine
    members_at_once: int = 0
    fresh_order: bool = True
    augmentation: str = "none"
    curvature_examples: int = 500
    curvature_interval: int = 0
    frozen: tuple[str, ...] = ()

    @property
    def steps_per_epoch(self) -> int:
        """Steps that present every training example once; the last batch may be short."""
        return -(-self.train_examples // self.batch_size)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.num_epochs * self.steps_per_epoch


class Member(flax.struct.PyTreeNode):
    """One trial in training.

    Attributes:
        state: the model.
        seed: source of all its randomness, Int[Array, ""].
        hyperparameters: its traced numbers.
        diverged: whether its loss has been infinite or NaN, Bool[Array, ""]; it is frozen from
            then on.
        loss: sum of the loss over the examples of the running epoch, as they were presented,
            Float[Array, ""].
        errors: number of them misclassified, Float[Array, ""].
        examples: number of them, Float[Array, ""].
    """

    state: TrainState
    seed: Any
    hyperparameters: Hyperparameters
    diverged: Any
    loss: Any
    errors: Any
    examples: Any


def create_member(
    recipe: Recipe,
    image_shape: tuple[int, int, int],
    seed: Int[Array, ""],
    hyperparameters: Hyperparameters,
) -> Member:
    """A member before its first step."""
    state = create_train_state(
        stream_key(seed, INIT, 0),
        recipe.model,
        image_shape,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        loss=recipe.loss,
        total_steps=recipe.total_steps,
        frozen=recipe.frozen,
    )
    zero = jnp.zeros(())
    return Member(state, seed, hyperparameters, jnp.zeros((), bool), zero, zero, zero)


def start_epoch(
    recipe: Recipe, member: Member, images: Images, epoch: Int[Array, ""]
) -> tuple[Member, Int[Array, "step batch"]]:
    """Clears the sums and draws the epoch's order: an index an example, -1 where there is none.

    With the optimizer `sdlm` the curvature is estimated as well.
    """
    counter = epoch if recipe.fresh_order else 0
    order = jax.random.permutation(stream_key(member.seed, ORDER, counter), recipe.train_examples)
    missing = recipe.steps_per_epoch * recipe.batch_size - recipe.train_examples
    order = jnp.concatenate([order, jnp.full(missing, -1, order.dtype)])
    zero = jnp.zeros(())
    member = member.replace(loss=zero, errors=zero, examples=zero)
    if recipe.optimizer == "sdlm":
        member = estimate_curvature(recipe, member, images)
    return member, order.reshape(recipe.steps_per_epoch, recipe.batch_size)


def estimate_curvature(recipe: Recipe, member: Member, images: Images) -> Member:
    """Estimates the curvature of a member on training examples drawn anew, each at most once."""
    key = stream_key(member.seed, CURVATURE, member.state.step)
    count = min(recipe.curvature_examples, recipe.train_examples)
    # One example of each of as many runs of the training set: far cheaper to draw than a subset.
    begins = jnp.arange(count) * recipe.train_examples // count
    ends = (jnp.arange(count) + 1) * recipe.train_examples // count
    chosen = jax.random.randint(key, (count,), begins, ends)
    batch = {
        "image": presentations.normalized(images, chosen, recipe.affine),
        "label": images.labels[chosen],
    }
    return member.replace(state=refresh_curvature(member.state, batch, member.hyperparameters))


def advance(
    recipe: Recipe,
    member: Member,
    order: Int[Array, "step batch"],
    images: Images,
    start: Int[Array, ""],
    stop: Int[Array, ""],
) -> Member:
    """Trains on the batches `start` to `stop` of an epoch.

    The bounds are traced, so an epoch can be cut anywhere, to report or to save, and the compiled
    step is the same: where it is cut changes no bit of the result.
    """

    def step(index: Int[Array, ""], member: Member) -> Member:
        chosen = order[index]
        batch = {
            "image": presentations.present(
                images,
                chosen,
                recipe.affine,
                recipe.augmentation,
                member.seed,
                member.state.step,
                member.hyperparameters.distortion,
            ),
            "label": images.labels[chosen],
            "mask": (chosen >= 0).astype(jnp.float32),
        }
        dropout = stream_key(member.seed, DROPOUT, member.state.step)
        state, metrics = train_step(member.state, batch, member.hyperparameters, dropout)
        diverged = member.diverged | ~jnp.isfinite(metrics["loss"])
        trained = member.replace(
            state=state,
            loss=member.loss + metrics["loss"],
            errors=member.errors + metrics["errors"],
            examples=member.examples + metrics["examples"],
        )

        def keep(old: Array, new: Array) -> Array:
            return old if new is old else jnp.where(diverged, old, new)

        return jax.tree.map(keep, member, trained).replace(diverged=diverged)

    interval = recipe.curvature_interval
    if recipe.optimizer != "sdlm" or not interval:
        return lax.fori_loop(start, stop, step, member)

    def stretch(reached: tuple[Array, Member]) -> tuple[Array, Member]:
        """The steps to the next estimate, or to the stop."""
        index, member = reached
        due = (index % interval == 0) & (index > 0)
        member = lax.cond(
            due, lambda member: estimate_curvature(recipe, member, images), lambda m: m, member
        )
        until = jnp.minimum(stop, (index // interval + 1) * interval)
        return until, lax.fori_loop(index, until, step, member)

    return lax.while_loop(lambda reached: reached[0] < stop, stretch, (start, member))[1]


def evaluate_block(
    recipe: Recipe, member: Member, images: Images, start: Int[Array, ""]
) -> dict[str, Array]:
    """`eval_step` of the EVALUATION_BLOCK examples from `start`; past the end, the last repeats."""
    last = images.labels.shape[0] - 1
    index = jnp.minimum(start + jnp.arange(EVALUATION_BLOCK), last)

    def evaluate_batch(chosen: Int[Array, "batch"]) -> dict[str, Array]:
        image = presentations.normalized(images, chosen, recipe.affine)
        batch = {"image": image, "label": images.labels[chosen]}
        return eval_step(member.state, batch, member.hyperparameters)

    results = lax.map(evaluate_batch, index.reshape(-1, EVALUATION_BATCH))
    return {name: values.reshape(-1) for name, values in results.items()}


@dataclasses.dataclass(frozen=True)
class Program:
    """The compiled functions of a population, over all its members at once.

    Attributes:
        recipe: what was compiled.
        mesh: the devices that the members are spread over.
        create: seeds "member", hyperparameters -> members.
        start_epoch: members, images, epoch -> members, orders.
        advance: members (consumed), orders, images, start, stop -> members.
        evaluate: members, images, start -> what `eval_step` says of a block of examples.
        compile_seconds: how long tracing and compiling took.
        bytes_per_device: memory that the compiled functions need beside the images, by XLA's count.
    """

    recipe: Recipe
    mesh: Mesh
    create: Callable[..., Member]
    start_epoch: Callable[..., tuple[Member, Array]]
    advance: Callable[..., Member]
    evaluate: Callable[..., dict[str, Array]]
    compile_seconds: float
    bytes_per_device: int


def mesh_for(members: int) -> Mesh:
    """The devices to spread a population over: at most one a member, at least one a process."""
    count = max(min(members, jax.device_count()), jax.process_count())
    devices = processes.in_turns(jax.devices())[:count]
    return Mesh(np.array(sorted(devices, key=lambda device: device.id)), (MEMBER,))


def members_at_once(recipe: Recipe, mesh: Mesh) -> int:
    """How many members a device trains at once; 0 for all it has.

    By default all on a GPU, where one alone leaves most of the chip idle, and one on a CPU core,
    whose cache holds the arrays of one step of one member.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return recipe.members_at_once or (1 if on_cpu else 0)


def map_members(
    function: Callable[..., Any], mapped: Sequence[bool], at_once: int
) -> Callable[..., Any]:
    """`function` of one member as a function of many.

    Args:
        function: of arguments that are one member's, or shared by all.
        mapped: which arguments are per member; these get a leading axis "member".
        at_once: how many members are computed together by `vmap`, tile after tile; 0 for all.
    """
    if at_once == 0:
        return jax.vmap(function, in_axes=tuple(0 if over else None for over in mapped))

    def each(*arguments: Any) -> Any:
        own = [argument for argument, over in zip(arguments, mapped, strict=True) if over]

        def one(own_of_one: Sequence[Any]) -> Any:
            left = iter(own_of_one)
            pairs = zip(arguments, mapped, strict=True)
            return function(*(next(left) if over else argument for argument, over in pairs))

        return lax.map(one, own, batch_size=None if at_once == 1 else at_once)

    return each


def compile_program(recipe: Recipe, members: int, images: Images, mesh: Mesh) -> Program:
    """Compiles a population's functions for a number of members, spread over the devices of a mesh.

    Each device has its members to itself: they never wait for one another inside a call.

    Raises:
        ValueError: if the devices do not divide the members.
    """
    if members % mesh.size:
        raise ValueError(f"{members} members cannot be spread evenly over {mesh.size} devices")
    began = time.perf_counter()
    _, height, width, channel = images.pixels.shape
    shape = (height, width, channel)
    per_member, shared = PartitionSpec(MEMBER), PartitionSpec()

    def spread(function: Callable[..., Any], *mapped: bool) -> Callable[..., Any]:
        each = map_members(function, mapped, members_at_once(recipe, mesh))
        specs = tuple(per_member if over else shared for over in mapped)
        # No collectives here, so nothing for the check of replicated values to find.
        return jax.shard_map(each, mesh=mesh, in_specs=specs, out_specs=per_member, check_vma=False)

    create = spread(functools.partial(create_member, recipe, shape), True, True)
    start = spread(functools.partial(start_epoch, recipe), True, False, False)
    advance_all = spread(functools.partial(advance, recipe), True, True, False, False, False)
    evaluate_all = spread(functools.partial(evaluate_block, recipe), True, False, False)

    def abstract(tree: Any, spec: PartitionSpec) -> Any:
        sharding = NamedSharding(mesh, spec)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    index = abstract(jax.ShapeDtypeStruct((), jnp.int32), shared)
    seeds = abstract(jax.ShapeDtypeStruct((members,), jnp.int32), per_member)
    number = abstract(jax.ShapeDtypeStruct((members,), jnp.float32), per_member)
    numbers = jax.tree.map(lambda _: number, Hyperparameters())
    population = abstract(jax.eval_shape(create, seeds, numbers), per_member)
    orders = abstract(jax.eval_shape(start, population, images, index)[1], per_member)
    step = jax.jit(advance_all, donate_argnums=0)
    trained = step.lower(population, orders, images, index, index).compile(COMPILER_OPTIONS)
    evaluated = jax.jit(evaluate_all).lower(population, images, index).compile(COMPILER_OPTIONS)
    return Program(
        recipe,
        mesh,
        jax.jit(create).lower(seeds, numbers).compile(),
        jax.jit(start).lower(population, images, index).compile(COMPILER_OPTIONS),
        trained,
        evaluated,
        time.perf_counter() - began,
        memory.bytes_of((population, orders)) // mesh.size
        + max(map(memory.working_bytes, (trained, evaluated))),
    )


def evaluate(
    program: Program, members: Member, images: Images, start: int, count: int
) -> dict[str, np.ndarray]:
    """What each member says of `count` examples from `start`: exact, each example once.

    Returns:
        `loss`, `prediction`, `probability`, `error` (whether it is wrong): each "member example".
    """
    blocks = [
        program.evaluate(members, images, np.int32(begin))
        for begin in range(start, start + count, EVALUATION_BLOCK)
    ]
    if not blocks:
        nothing = np.zeros((members.seed.shape[0], 0))
        return dict.fromkeys(("loss", "prediction", "probability", "error"), nothing)
    told = [processes.gather(block) for block in blocks]
    results = {
        name: np.concatenate([block[name] for block in told], axis=1)[:, :count]
        for name in ("loss", "prediction", "probability")
    }
    labels = np.asarray(images.labels[start : start + count])
    return {**results, "error": results["prediction"] != labels}


def learning_rates(members: Member, ago: int = 0) -> np.ndarray:
    """The scheduled learning rate of each member's next step, or of one so long ago, "member"."""
    steps, numbers = processes.gather((members.state.step, members.hyperparameters))
    state = members.state.replace(step=steps - ago, params=None, opt_state=None)
    return np.asarray(jax.vmap(scheduled_rate)(state, numbers))


def step_sizes(members: Member) -> list[dict[str, float]] | None:
    """Of each member, how the steps of its last update are spread over its parameters.

    Returns:
        Quantiles of learning rate / (damping + curvature) over all parameters, as `min`, `q05`,
        `median`, `q95` and `max`; None if the optimizer is not `sdlm`.
    """
    if members.state.optimizer != "sdlm":
        return None
    held = processes.gather(optax.tree.get(members.state.opt_state, "curvature"))
    damping = processes.gather(members.hyperparameters.damping)
    count = len(damping)
    curvatures = np.concatenate([leaf.reshape(count, -1) for leaf in jax.tree.leaves(held)], axis=1)
    rates = learning_rates(members, ago=1)
    levels = {"min": 0, "q05": 0.05, "median": 0.5, "q95": 0.95, "max": 1}
    found = np.quantile(
        rates[:, None] / (damping[:, None] + curvatures), [*levels.values()], axis=1
    )
    return [dict(zip(levels, map(float, column), strict=True)) for column in found.T]


def place(images: np.ndarray, labels: np.ndarray, mesh: Mesh) -> Images:
    """Puts images and labels on every device of a mesh."""
    return _placed(Images(images, labels.astype(np.int32)), mesh, PartitionSpec())


def place_members(members: Any, mesh: Mesh) -> Any:
    """Puts a tree of arrays "member ..." on the devices of a mesh, each its share of members."""
    return _placed(members, mesh, PartitionSpec(MEMBER))


def _placed(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    """Puts arrays that every process has whole on the devices of all of them."""
    sharding = NamedSharding(mesh, spec)

    def put(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree)


def run_epoch(
    program: Program,
    members: Member,
    images: Images,
    epoch: int,
    start: int,
    stopped: Callable[[], int] = lambda: 0,
    seconds_per_call: float = 0.5,
    marks: Sequence[int] = (),
) -> Iterator[tuple[Member, int, float, int]]:
    """Trains through an epoch from step `start`, in calls of about `seconds_per_call`.

    Args:
        program: what trains.
        members: what is trained; consumed.
        images: on the devices.
        epoch: its number, which draws its order.
        start: the step within it to begin with.
        stopped: gives the signal that asks to stop, or 0. Asked after each call.
        seconds_per_call: at most about so long between two questions.
        marks: steps of the epoch before which the members are wanted; 0 is before the first.

    Yields:
        The members, the steps of the epoch done so far, the seconds this call trained, and the
        signal, the same in every process. After a signal nothing more is trained.
    """
    fresh, orders = program.start_epoch(members, images, np.int32(epoch))
    members = fresh if start == 0 else members
    steps = program.recipe.steps_per_epoch
    length, signum = 1, 0
    if start == 0 and start in marks:
        yield members, start, 0.0, signum
    while start < steps and not signum:
        stop = min(start + length, steps, *(mark for mark in marks if mark > start))
        began = time.perf_counter()
        members = program.advance(members, orders, images, np.int32(start), np.int32(stop))
        jax.block_until_ready(members)
        seconds = time.perf_counter() - began
        length = max(1, min(8 * length, int((stop - start) * seconds_per_call / seconds)))
        # Every process must make the same calls, whatever its own clock says.
        told = processes.from_each([length, stopped()])
        length, signum = int(told[:, 0].min()), int(told[:, 1].max())
        start = stop
        yield members, start, seconds, signum


def numbers_of(trials: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, Hyperparameters]:
    """Seeds and hyperparameters of trials, given their fields, as arrays "member"."""
    seeds = np.asarray([fields["seed"] for fields in trials], np.int32)
    names = [field.name for field in dataclasses.fields(Hyperparameters)]
    columns = {name: np.asarray([fields[name] for fields in trials], np.float32) for name in names}
    return seeds, Hyperparameters(**columns)
