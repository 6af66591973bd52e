"""LeNet as four choices: an activation, a pooling, a connection scheme, an output head."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from lenet import codes, layers
from lenet.backward import BACKWARD
from lenet.registry import lookup

# Two convolutions of 5x5, each halved by pooling, leave one row of maps of this many pixels.
SMALLEST_IMAGE = 16


class LeNet(nn.Module):
    """C1-S2-C3-S4 and a head (LeCun et al. 1998, section II.B).

    Attributes:
        activation: a name in `layers.ACTIVATIONS`; follows c1 c3 c5 f6, and s2 s4 when trainable.
        pooling: a name in `layers.POOLINGS`, for s2 and s4.
        connections: a name in `layers.CONNECTIONS`, from s2 to c3.
        head: a name in `HEADS`: `dense` is c5 f6 output, `gap` averages each map of s4 and feeds
            the means to the output layer, `rbf` is c5 f6 and distances to fixed codes.
        widths: maps of c1, maps of c3, units of c5, units of f6 (the last two unused by `gap`).
        extra_layers: fully connected layers more after f6, each as wide as it: f7, f8, ...
        dropout: share of the units of c5, f6 and the layers after that are set to zero where there
            is an rng called `dropout`, as in training (Srivastava et al. 2014).
        classes: units of the output layer.
        initialization: a name in `layers.INITIALIZATIONS`.
        coefficients: a name in `layers.COEFFICIENTS`, for the pooling `subsampling`.
        convolution: a name in `layers.CONVOLUTIONS`: how, not what, is computed.
        precision: a name in `precision.PRECISIONS`: of matrix products.
        backward: a name in `backward.BACKWARD`: what differentiation finds, the network unchanged.
    """

    activation: str = "relu"
    pooling: str = "max"
    connections: str = "full"
    head: str = "dense"
    widths: tuple[int, int, int, int] = (6, 16, 120, 84)
    extra_layers: int = 0
    dropout: float = 0.0
    classes: int = 10
    initialization: str = "lecun_normal"
    coefficients: str = "mean"
    convolution: str = "auto"
    precision: str = "float32"
    backward: str = "gradient"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channel"], trained_part: bool = False
    ) -> Float[Array, "batch outputs"]:
        """Returns the outputs, the greatest of which names the class.

        Args:
            images: normalised.
            trained_part: return what `output_of` takes, which is as far as the parameters reach.

        Raises:
            ValueError: if the images are smaller than 16x16, or a choice is unknown.
        """
        _check_size(images.shape[1], images.shape[2])
        x = images.transpose(3, 1, 2, 0)
        for convolution, pooling, features, connections in (
            ("c1", "s2", self.widths[0], "full"),
            ("c3", "s4", self.widths[1], self.connections),
        ):
            phases = layers.Convolution(
                features,
                connections,
                self.initialization,
                self.convolution,
                self.backward,
                self.precision,
                name=convolution,
            )(x)
            x = layers.Pooling(
                self.pooling,
                self.activation,
                self.initialization,
                self.coefficients,
                self.backward,
                self.precision,
                name=pooling,
            )(phases)
        top = lookup(HEADS, self.head, "head")(self, x).T
        return top if trained_part else self.output_of(top)

    def output_of(self, top: Float[Array, "batch units"]) -> Float[Array, "batch classes"]:
        """The outputs; `rbf` turns f6 into minus the squared distances to the codes."""
        if self.head != "rbf":
            return top
        return -codes.squared_distances(top.T, self.classes).T

    def dense_head(self, maps: layers.Maps) -> Float[Array, "classes batch"]:
        """c5, f6 and output, fully connected."""
        return self.connect(self.classes, "output", self.code(maps))

    def code(self, maps: layers.Maps) -> Float[Array, "units batch"]:
        """c5 f6 and more, fully connected; maps are flattened in order channel height width."""
        x = maps.reshape(-1, maps.shape[-1])
        widths = (*self.widths[2:], *[self.widths[3]] * self.extra_layers)
        for name, units in zip(hidden_layers(self), widths, strict=True):
            x = layers.activate(self.connect(units, name, x), self.activation, self.backward)
            if self.dropout and self.has_rng("dropout"):
                x = nn.Dropout(self.dropout, deterministic=False)(x)
        return x

    def gap_head(self, maps: layers.Maps) -> Float[Array, "classes batch"]:
        """Global average pooling, then output (Lin et al. 2013)."""
        as_product, _ = lookup(BACKWARD, self.backward, "backward")
        share = jnp.asarray(1 / (maps.shape[1] * maps.shape[2]))
        means = as_product(lambda x, weight: weight * x.sum(axis=(1, 2)))(maps, share)
        return self.connect(self.classes, "output", means)

    def connect(self, units: int, name: str, x: Array) -> Array:
        """A fully connected layer."""
        dense = layers.Dense(units, self.initialization, self.backward, self.precision, name=name)
        return dense(x)


# What each does with the maps of s4, as far as there are parameters.
HEADS: dict[str, Callable[[LeNet, Array], Array]] = {
    "dense": LeNet.dense_head,
    "gap": LeNet.gap_head,
    "rbf": LeNet.code,
}


def hidden_layers(model: LeNet) -> tuple[str, ...]:
    """The fully connected layers before the output, where there are any: c5, f6, f7, ..."""
    if model.head == "gap":
        return ()
    return ("c5", *(f"f{6 + index}" for index in range(1 + model.extra_layers)))


def layer_names(model: LeNet) -> tuple[str, ...]:
    """Every layer, whether it has parameters or not."""
    return ("c1", "s2", "c3", "s4", *hidden_layers(model), "output")


def check_layers(model: LeNet, layers: Sequence[str], field: str) -> None:
    """Checks that a network has layers of these names, the value of a field.

    Raises:
        ValueError: if it has not, naming the field and its layers.
    """
    known = dict.fromkeys(layer_names(model))
    for layer in layers:
        lookup(known, layer, field)


def _check_size(height: int, width: int) -> None:
    if min(height, width) < SMALLEST_IMAGE:
        raise ValueError(
            f"images are {height}x{width}; LeNet takes {SMALLEST_IMAGE}x{SMALLEST_IMAGE} and more"
        )


def create(config: ConfigDict, classes: int) -> LeNet:
    """The network that a config describes.

    Raises:
        ValueError: if its connections or its head do not fit its widths or the classes.
    """
    if config.head == "rbf":
        codes.check(config.widths[3], classes)
    lookup(layers.CONNECTIONS, config.connections, "connections")(*config.widths[:2])
    # A config of before a field was added means its default.
    choices = {name: config[name] for name in LeNet.__dataclass_fields__ if name in config}
    return LeNet(**choices | {"widths": tuple(config.widths), "classes": classes})


def init_params(
    model: LeNet, key: Key[Array, ""], image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Initial parameters for images of shape (height, width, channel)."""
    return model.init(key, jnp.zeros((1, *image_shape)))["params"]


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One layer of a network, counted per image.

    Attributes:
        output_shape: height, width and maps, or units.
        receptive_field: side in pixels of the square of the image that one unit sees.
        connections: as the paper counts them: every weight use, and every bias use.
        multiply_adds: uses of a weight, biases not counted.
    """

    name: str
    output_shape: tuple[int, ...]
    receptive_field: int
    parameters: int
    connections: int
    multiply_adds: int


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """What a network is made of, layer by layer and in all."""

    layers: tuple[LayerSummary, ...]
    parameters: int
    connections: int
    multiply_adds: int
    fully_connected_share: float


def summarize(model: LeNet, image_shape: tuple[int, int, int]) -> ModelSummary:
    """Shapes, receptive fields, parameters, connections and multiply-adds of a network.

    All follows from the shapes of the parameters and of the maps. Connections are counted as in
    section II.B of the paper: per output unit, its inputs and its bias.
    """
    params = jax.eval_shape(lambda key: init_params(model, key, image_shape), jax.random.key(0))
    sizes = {
        layer: {name: math.prod(leaf.shape) for name, leaf in leaves.items()}
        for layer, leaves in params.items()
    }
    height, width, _ = image_shape
    field, stride = 1, 1
    rows = []

    def add(name: str, output_shape: tuple[int, ...], pooled: int, uses: int) -> None:
        biases = sizes.get(name, {}).get("bias", 0)
        weights = sum(sizes.get(name, {}).values()) - biases
        connections = uses * (max(weights, pooled) + biases)
        rows.append(
            LayerSummary(name, output_shape, field, weights + biases, connections, uses * weights)
        )

    for convolution, pooling, maps in (
        ("c1", "s2", model.widths[0]),
        ("c3", "s4", model.widths[1]),
    ):
        height, width = height - layers.KERNEL_SIZE + 1, width - layers.KERNEL_SIZE + 1
        field += (layers.KERNEL_SIZE - 1) * stride
        add(convolution, (height, width, maps), pooled=0, uses=height * width)
        if model.pooling == "none":
            continue
        height, width = height // 2, width // 2
        field += stride
        stride *= 2
        add(pooling, (height, width, maps), pooled=4 * maps, uses=height * width)
    field += (max(height, width) - 1) * stride
    connected = (*hidden_layers(model), "output")
    for name in connected:
        if name in sizes:
            add(name, (sizes[name]["bias"],), pooled=0, uses=1)
    if model.head == "rbf":
        uses = model.widths[3] * model.classes
        rows.append(LayerSummary("output", (model.classes,), field, 0, uses, uses))

    parameters = sum(row.parameters for row in rows)
    share = sum(row.parameters for row in rows if row.name in connected) / parameters
    return ModelSummary(
        tuple(rows),
        parameters,
        sum(row.connections for row in rows),
        sum(row.multiply_adds for row in rows),
        share,
    )
