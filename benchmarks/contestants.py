"""Ways of training the same LeNet, made comparable: one task, one interface, one check.

A contestant is a name, how many models it trains at once, and `make`, which prepares it for a
`Task` and returns its `Entry`: one function that takes the first step of training, for
`check_agreement`, and one that trains for so many images and says how long it took. Another way of
training is one more function that returns a `Contestant`.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from jaxtyping import Array, Float, Float32, Int, Int32, UInt8
from ml_collections import ConfigDict

from configs import lenet5_1998, relu_max
from lenet import data as datasets
from lenet import model as models
from lenet import program as programs
from lenet.fields import ORDERS
from lenet.optimizers import Hyperparameters
from lenet.registry import lookup

SEED = 0
SIDE = 32
IMAGES = 60_000
CLASSES = 10
LOSS_TOLERANCE = 1e-4
# How far apart the first step may leave a parameter, at most and on average over a layer's, in
# moves of that layer. Adam moves every parameter by the learning rate times the sign of its
# gradient, and where the gradient is within rounding of zero the sign is chance.
MOVE_TOLERANCES = {"adam": (2.01, 0.01), "sgd": (1e-3, 1e-4)}

Params = Mapping[str, Mapping[str, Any]]


class AgreementError(ValueError):
    """Two contestants do not do the same work."""


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """The first step of `SEED`: the parameters before it, and which images it presents."""

    params: Params
    chosen: Int[np.ndarray, "batch"]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What every contestant trains, and on what.

    Attributes:
        network: a name in `NETWORKS`.
        config: what it stands for.
        recipe: what of it is compiled into our program.
        pixels: the training images, padded.
        source: where they came from.
        start: what training begins with.
        threads: how many PyTorch may use; JAX uses every core the process has.
        platform: `cpu` or `gpu`, where all of them train.
    """

    network: str
    config: ConfigDict
    recipe: programs.Recipe
    pixels: UInt8[np.ndarray, "image height width channel"]
    labels: Int32[np.ndarray, "image"]
    source: str
    start: Start
    threads: int
    platform: str = "cpu"


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What the first step gave each member: the mean loss before it, the parameters after it.

    The parameters are named and shaped as ours, but for a leading axis "member".
    """

    loss: Float[np.ndarray, "member"]
    params: Params


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contestant, prepared.

    Attributes:
        first_step: takes the same first step with every member.
        train: goes on training every member, and returns the seconds that so many images take: it
            trains on about so many, ours on an epoch at most.
    """

    first_step: Callable[[Start], Outcome]
    train: Callable[[int], float]


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A way of training `members` models."""

    name: str
    members: int
    make: Callable[[Task], Entry]


def _relu_max() -> ConfigDict:
    config = relu_max.get_config()
    config.schedule = "constant"
    return config


def _lenet5_1998() -> ConfigDict:
    config = lenet5_1998.get_config()
    config.update(optimizer="sgd", schedule="constant")
    return config


# What there is to train: the LeNet of most tutorials with Adam; the LeNet-5 of 1998 with plain SGD,
# the step that every framework has. `ours` can put the paper's optimizer in its place.
NETWORKS: dict[str, Callable[[], ConfigDict]] = {
    "relu_max": _relu_max,
    "lenet5_1998": _lenet5_1998,
}


def create_task(
    pixels: UInt8[np.ndarray, "image height width channel"],
    labels: Int32[np.ndarray, "image"],
    source: str,
    batch_size: int,
    threads: int,
    network: str = "relu_max",
    platform: str = "cpu",
) -> Task:
    """A network of `NETWORKS` to be trained on these images.

    Raises:
        ValueError: if there are fewer images than a batch has, or the network is unknown.
    """
    if not 1 <= batch_size <= len(labels):
        raise ValueError(f"batch_size={batch_size} is out of range; choose 1 to {len(labels)}")
    config = lookup(NETWORKS, network, "network")()
    config.batch_size = batch_size
    recipe = programs.Recipe(
        model=models.create(config, CLASSES),
        optimizer=config.optimizer,
        schedule=config.schedule,
        loss=config.loss,
        batch_size=batch_size,
        num_epochs=config.num_epochs,
        train_examples=len(labels),
        affine=datasets.normalization(config.normalization, pixels),
        fresh_order=ORDERS[config.order],
        curvature_examples=config.curvature_examples,
    )
    start = _first_step(config, recipe, programs.Images(pixels, labels))
    return Task(network, config, recipe, pixels, labels, source, start, threads, platform)


def _first_step(config: ConfigDict, recipe: programs.Recipe, images: programs.Images) -> Start:
    @jax.jit
    def begin(seed: Int[Array, ""], numbers: Hyperparameters) -> tuple[Any, Array]:
        member = programs.create_member(recipe, images.pixels.shape[1:], seed, numbers)
        _, order = programs.start_epoch(recipe, member, images, jnp.int32(0))
        return member.state.params, order[0]

    only = programs.numbers_of([{**config, "seed": SEED}])
    return Start(*jax.device_get(begin(*jax.tree.map(lambda values: values[0], only))))


def load_images() -> tuple[np.ndarray, np.ndarray, str]:
    """MNIST's training images, padded; random pixels of the same shape where it cannot be had."""
    try:
        dataset = datasets.load("mnist")
    except (OSError, ValueError) as error:
        rng = np.random.default_rng(SEED)
        pixels = rng.integers(0, 256, (IMAGES, SIDE, SIDE, 1), np.uint8)
        labels = rng.integers(0, CLASSES, IMAGES, np.int32)
        return pixels, labels, f"random pixels, as mnist cannot be loaded ({error})"
    return datasets.pad(dataset.train_images, SIDE), dataset.train_labels, "mnist"


def training_flop(model: models.LeNet, image_shape: tuple[int, int, int]) -> int:
    """Floating-point operations the network itself asks for to train on one image.

    Each multiply-add is two. The backward pass has one product for the weights and one for the
    inputs of each layer; only the first layer's inputs and the fixed codes need no gradient.
    """
    first, *others = models.summarize(model, image_shape).layers
    products = [(3 if layer.parameters else 2) * layer.multiply_adds for layer in others]
    return 2 * (2 * first.multiply_adds + sum(products))


def check_agreement(outcomes: Mapping[str, Outcome], task: Task) -> None:
    """Checks that the first step was the same for all, to rounding.

    The unit is the greatest move that the first contestant gave a parameter of the layer. By how
    many of them parameters may differ is in `MOVE_TOLERANCES`.

    Raises:
        AgreementError: naming the contestant, and the parameter or the loss that differs.
    """
    most, average = MOVE_TOLERANCES[task.recipe.optimizer]
    (first, expected), *others = outcomes.items()
    for name, outcome in [(first, expected), *others]:
        loss = expected.loss[0]
        worst = outcome.loss[np.abs(outcome.loss - loss).argmax()]
        if not abs(worst - loss) <= LOSS_TOLERANCE * abs(loss):
            raise AgreementError(f"{name} has a first loss of {worst:.6g}, {first} of {loss:.6g}")
        for layer, leaves in expected.params.items():
            for leaf, values in leaves.items():
                before = np.asarray(task.start.params[layer][leaf])
                move = np.abs(values[0] - before).max()
                difference = np.abs(np.asarray(outcome.params[layer][leaf]) - values[:1])
                # A parameter is itself rounded, which counts where the move is small.
                apart = np.maximum(difference - 2 * np.spacing(np.abs(before).max()), 0)
                means = apart.reshape(len(apart), -1).mean(axis=1)
                if not (apart.max() <= most * move and means.max() <= average * move):
                    raise AgreementError(
                        f"{name} and {first} differ in {layer}.{leaf} after one step: by "
                        f"{difference.max():.3g} at most, {difference.mean():.3g} on average, "
                        f"where it moves by {move:.3g}"
                    )


def batches(task: Task, seed: int = SEED) -> Iterator[Int[np.ndarray, "batch"]]:
    """Which images to present, a fresh order an epoch, for ever; a short last batch is left out."""
    rng = np.random.default_rng(seed)
    size = task.recipe.batch_size
    while True:
        order = rng.permutation(len(task.labels))
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]


def ours(members: int, optimizer: str = "") -> Contestant:
    """`lenet.program`, as `main.py` uses it.

    Args:
        members: models at once.
        optimizer: what they are trained with after the first step; the task's, if there is none.
    """

    def make(task: Task) -> Entry:
        mesh = programs.mesh_for(members)
        images = programs.place(task.pixels, task.labels, mesh)
        missing = -members % mesh.size
        examples, size = task.recipe.train_examples, task.recipe.batch_size

        def compile_with(optimizer: str) -> programs.Program:
            recipe = dataclasses.replace(task.recipe, optimizer=optimizer)
            return programs.compile_program(recipe, members + missing, images, mesh)

        checked = compile_with(task.recipe.optimizer)
        timed = compile_with(optimizer) if optimizer else checked

        def create(program: programs.Program, seeds: Sequence[int]) -> programs.Member:
            trials = [{**task.config, "seed": seed} for seed in seeds]
            padded = [*trials, *trials[-1:] * missing]
            return program.create(*programs.place_members(programs.numbers_of(padded), mesh))

        def take_first(start: Start) -> Outcome:
            begun = create(checked, [SEED] * members)
            trained, *_ = next(programs.run_epoch(checked, begun, images, 0, 0))
            told = jax.device_get((trained.loss / trained.examples, trained.state.params))
            return Outcome(*jax.tree.map(lambda values: values[:members], told))

        population = create(timed, range(SEED, SEED + members))
        epochs = itertools.count()

        def train(count: int) -> float:
            nonlocal population
            steps = min(-(-count // size), task.recipe.steps_per_epoch)
            marks = [time.perf_counter()]
            started = timed.start_epoch(population, images, np.int32(next(epochs)))
            begun, orders = jax.block_until_ready(started)
            marks.append(time.perf_counter())
            population = timed.advance(begun, orders, images, np.int32(0), np.int32(steps))
            jax.block_until_ready(population)
            marks.append(time.perf_counter())
            # What an epoch begins with, the curvature too, counts for as much of it as is asked.
            beginning, stepping = np.diff(marks)
            presented = min(steps * size, examples)
            return float(stepping / presented + beginning / examples) * count

        return Entry(take_first, train)

    name = f"ours, {optimizer}" if optimizer else "ours"
    return Contestant(name if members == 1 else f"{name}, {members} models", members, make)


class PlainLeNet(nn.Module):
    """The network as Flax's MNIST example would write it."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch classes"]:
        """Returns the logits."""
        x = nn.relu(nn.Conv(6, (5, 5), padding="VALID", name="c1")(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(16, (5, 5), padding="VALID", name="c3")(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(120, name="c5")(x))
        x = nn.relu(nn.Dense(84, name="f6")(x))
        return nn.Dense(10, name="output")(x)


def plain_flax() -> Contestant:
    """`nn.Conv`, and one jitted step a batch called from a Python loop."""
    return Contestant("plain Flax", 1, _make_plain_flax)


def mapped_flax(members: int) -> Contestant:
    """The same, all members at once: the step under `vmap`, the convolution with it."""

    def make(task: Task) -> Entry:
        return _make_mapped_flax(task, members)

    return Contestant(f"Flax vmap, {members} models", members, make)


def _make_mapped_flax(task: Task, members: int) -> Entry:
    orders = [batches(task, seed) for seed in range(members)]
    create = _plain_creator(task)
    step = jax.jit(jax.vmap(_plain_step))

    def stack(params: Params) -> TrainState:
        return jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * members), create(params))

    def advance(state: TrainState, chosen: np.ndarray) -> tuple[TrainState, Array]:
        return step(state, task.pixels[chosen], task.labels[chosen])

    def take_first(start: Start) -> Outcome:
        stepped, losses = advance(stack(start.params), np.stack([start.chosen] * members))
        each = [
            _channels_first(jax.tree.map(lambda leaf, m=member: leaf[m], stepped.params))
            for member in range(members)
        ]
        params = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *each)
        return Outcome(np.asarray(losses), params)

    def train(count: int) -> float:
        nonlocal state
        steps = -(-count // task.recipe.batch_size)
        began = time.perf_counter()
        for _ in range(steps):
            state, _ = advance(state, np.stack([next(order) for order in orders]))
        jax.block_until_ready(state)
        return (time.perf_counter() - began) * count / (steps * task.recipe.batch_size)

    state = stack(task.start.params)
    return Entry(take_first, train)


@jax.jit
def _plain_step(
    state: TrainState,
    pixels: UInt8[Array, "batch height width channel"],
    labels: Int32[Array, "batch"],
) -> tuple[TrainState, Float32[Array, ""]]:
    def mean_loss(params: Any) -> Float32[Array, ""]:
        logits = state.apply_fn({"params": params}, pixels.astype(jnp.float32) / 255)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    loss, gradients = jax.value_and_grad(mean_loss)(state.params)
    return state.apply_gradients(grads=gradients), loss


def _plain_creator(task: Task) -> Callable[[Params], TrainState]:
    network = PlainLeNet()
    optimizer = optax.adam(task.config.learning_rate)
    return lambda params: TrainState.create(
        apply_fn=network.apply, params=_channels_last(params), tx=optimizer
    )


def _make_plain_flax(task: Task) -> Entry:
    order = batches(task)
    create = _plain_creator(task)

    def take_first(start: Start) -> Outcome:
        begun = create(start.params)
        stepped, loss = _plain_step(begun, task.pixels[start.chosen], task.labels[start.chosen])
        params = jax.tree.map(lambda leaf: np.asarray(leaf)[None], _channels_first(stepped.params))
        return Outcome(np.asarray(loss)[None], params)

    def train(count: int) -> float:
        nonlocal state
        steps = -(-count // task.recipe.batch_size)
        began = time.perf_counter()
        for chosen in itertools.islice(order, steps):
            state, _ = _plain_step(state, task.pixels[chosen], task.labels[chosen])
        jax.block_until_ready(state)
        return (time.perf_counter() - began) * count / (steps * task.recipe.batch_size)

    state = create(task.start.params)
    return Entry(take_first, train)


def _channels_last(params: Params) -> dict[str, Any]:
    """Our parameters for a network that flattens s4 in order height width channel."""
    kernel = jnp.asarray(params["c5"]["kernel"]).reshape(16, 5, 5, 120)
    flat = kernel.transpose(1, 2, 0, 3).reshape(400, 120)
    return {**params, "c5": {**params["c5"], "kernel": flat}}


def _channels_first(params: Params) -> dict[str, Any]:
    kernel = jnp.asarray(params["c5"]["kernel"]).reshape(5, 5, 16, 120)
    flat = kernel.transpose(2, 0, 1, 3).reshape(400, 120)
    return {**params, "c5": {**params["c5"], "kernel": flat}}
