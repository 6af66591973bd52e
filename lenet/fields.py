"""Every field of a config: what its value must be, and what may differ between trials.

A new field has its place here, in `configs/base.py`, and where it is used.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from lenet import layers, model
from lenet.data import NORMALIZATIONS
from lenet.losses import LOSSES
from lenet.optimizers import OPTIMIZERS, SCHEDULES
from lenet.precision import PRECISIONS
from lenet.presentations import AUGMENTATIONS
from lenet.registry import lookup

# Numbers that are inputs of a compiled program: trials that differ in these alone share one.
TRACED = (
    "seed",
    "learning_rate",
    "momentum",
    "weight_decay",
    "damping",
    "curvature_memory",
    "rbf_j",
    "rbf_scale",
    "translation",
    "scaling",
    "squeezing",
    "shear",
)
# The order of the examples: drawn anew for every epoch, or once, as in the paper.
ORDERS = {"fresh": True, "constant": False}
# Fields that say what to run, not how one trial is trained.
DECLARING = ("sweep", "variants", "tune", "tune_seeds")
# Fields that say what to compare; a run without them compares no less than every pair.
COMPARING = ("path", "references")
# Fields of the whole run, which has one data set.
SHARED = (
    "dataset",
    "data_dir",
    "allow_subset",
    "holdout",
    "validation_examples",
    "members_at_once",
    "checkpoints_to_keep",
)

Check = Callable[[str, Any], None]


def _one_of(choices: Mapping[str, Any]) -> Check:
    return lambda field, value: lookup(choices, value, field) and None


def _number(kind: type, least: int | float, below: int | float = math.inf) -> Check:
    def check(field: str, value: Any) -> None:
        right = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is int:
            right = right and isinstance(value, int)
        if not (right and math.isfinite(value) and least <= value < below):
            bounds = f"at least {least}" + (f" and below {below}" if below < math.inf else "")
            sort = "a whole number" if kind is int else "a number"
            raise ValueError(f"{field}={value!r} must be {sort}, {bounds}")

    return check


def _instance(kind: type, what: str) -> Check:
    def check(field: str, value: Any) -> None:
        if not isinstance(value, kind):
            raise ValueError(f"{field}={value!r} must be {what}")

    return check


def _widths(field: str, value: Any) -> None:
    if not (isinstance(value, tuple) and len(value) == 4):
        raise ValueError(f"{field}={value!r} must be four whole numbers, for c1 c3 c5 f6")
    for width in value:
        _number(int, 1)(field, width)


def _layers(field: str, value: Any) -> None:
    if not (isinstance(value, tuple) and all(isinstance(layer, str) for layer in value)):
        raise ValueError(f"{field}={value!r} must be a list of layers, such as ('c1', 'c3')")


# Every field that a config has, and what its value must be.
FIELDS: dict[str, Check] = {
    "dataset": _instance(str, "the name of a data set"),
    "data_dir": _instance(str, "a path, or empty"),
    "allow_subset": _instance(bool, "True or False"),
    "holdout": _number(int, 0),
    "train_examples": _number(int, 0),
    "validation_examples": _number(int, 0),
    "normalization": _one_of(NORMALIZATIONS),
    "augmentation": _one_of(AUGMENTATIONS),
    "translation": _number(float, 0),
    "scaling": _number(float, 0),
    "squeezing": _number(float, 0),
    "shear": _number(float, 0),
    "activation": _one_of(layers.ACTIVATIONS),
    "pooling": _one_of(layers.POOLINGS),
    "connections": _one_of(layers.CONNECTIONS),
    "head": _one_of(model.HEADS),
    "widths": _widths,
    "extra_layers": _number(int, 0),
    "dropout": _number(float, 0, 1),
    "initialization": _one_of(layers.INITIALIZATIONS),
    "coefficients": _one_of(layers.COEFFICIENTS),
    "convolution": _one_of(layers.CONVOLUTIONS),
    "precision": _one_of(PRECISIONS),
    "loss": _one_of(LOSSES),
    "optimizer": _one_of(OPTIMIZERS),
    "learning_rate": _number(float, 0),
    "momentum": _number(float, 0, 1),
    "weight_decay": _number(float, 0),
    "damping": _number(float, 0),
    "curvature_examples": _number(int, 1),
    "curvature_interval": _number(int, 0),
    "curvature_memory": _number(float, 0, 1),
    "rbf_j": _number(float, 0),
    "rbf_scale": _number(float, 0),
    "schedule": _one_of(SCHEDULES),
    "order": _one_of(ORDERS),
    "init_from": _instance(str, "the workdir of a run, or empty"),
    "init_variant": _instance(str, "the name of a variant, or empty"),
    "init_layers": _layers,
    "frozen": _layers,
    "batch_size": _number(int, 1),
    "num_epochs": _number(int, 1),
    "seed": _number(int, 0, 2**31),
    "members_at_once": _number(int, 0),
    "checkpoints_to_keep": _number(int, 1),
}
