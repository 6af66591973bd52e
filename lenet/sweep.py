"""From a config to trials, and from trials to populations.

A trial is one fully resolved config. Trials that differ only in TRACED fields, which are inputs of
the compiled program, train together as one population.
"""

import dataclasses
import difflib
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from lenet import layers, model
from lenet.data import NORMALIZATIONS
from lenet.losses import LOSSES
from lenet.optimizers import OPTIMIZERS, SCHEDULES
from lenet.registry import lookup

TRACED = ("seed", "learning_rate", "momentum", "weight_decay")
# Fields that say what to run, not how one trial is trained.
DECLARING = ("sweep",)
# Fields of the whole run: every trial sees the same images.
SHARED = (
    "dataset",
    "data_dir",
    "allow_subset",
    "train_examples",
    "validation_examples",
    "normalization",
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


# Every field that a config has, and what its value must be.
FIELDS: dict[str, Check] = {
    "dataset": _instance(str, "the name of a data set"),
    "data_dir": _instance(str, "a path, or empty"),
    "allow_subset": _instance(bool, "True or False"),
    "train_examples": _number(int, 0),
    "validation_examples": _number(int, 0),
    "normalization": _one_of(NORMALIZATIONS),
    "activation": _one_of(layers.ACTIVATIONS),
    "pooling": _one_of(layers.POOLINGS),
    "connections": _one_of(layers.CONNECTIONS),
    "head": _one_of(model.HEADS),
    "widths": _widths,
    "initialization": _one_of(layers.INITIALIZATIONS),
    "convolution": _one_of(layers.CONVOLUTIONS),
    "loss": _one_of(LOSSES),
    "optimizer": _one_of(OPTIMIZERS),
    "learning_rate": _number(float, 0),
    "momentum": _number(float, 0, 1),
    "weight_decay": _number(float, 0),
    "schedule": _one_of(SCHEDULES),
    "batch_size": _number(int, 1),
    "num_epochs": _number(int, 1),
    "seed": _number(int, 0, 2**31),
    "checkpoints_to_keep": _number(int, 1),
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """One model to train.

    Attributes:
        id: its name, unique in the run: the variant and the seed.
        variant: what it shares with the trials that differ from it only in the seed.
        overrides: the swept fields and their values.
        fields: every field of its config, resolved.
    """

    id: str
    variant: str
    overrides: Mapping[str, Any]
    fields: Mapping[str, Any]

    @property
    def config(self) -> ConfigDict:
        """The trial's fields as a config."""
        return ConfigDict(dict(self.fields))

    @property
    def seed(self) -> int:
        """The seed of its initial parameters and of its order of examples."""
        return self.fields["seed"]


Population = tuple[Trial, ...]


def resolve(config: ConfigDict, name: str) -> tuple[Trial, ...]:
    """The trials of a config called `name`: the product of the values in `config.sweep`.

    Raises:
        ValueError: if a field or a value is not valid, naming it and what is.
    """
    for field in config:
        if field not in FIELDS and field not in DECLARING:
            near = difflib.get_close_matches(field, FIELDS, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"{field!r} is not a field{hint}; the fields are: {', '.join(FIELDS)}")
    for field in (*FIELDS, *DECLARING):
        if field not in config:
            raise ValueError(f"the config lacks the field {field!r}; start from configs/base.py")
    base = {field: _plain(config[field]) for field in FIELDS}
    for field, value in base.items():
        FIELDS[field](field, value)
    sweep = {key: _values(key, values) for key, values in config.sweep.items()}
    trials = []
    for combination in itertools.product(*sweep.values()):
        overrides = dict(zip(sweep, combination, strict=True))
        fields = {**base, **overrides}
        chosen = [f"{key}={value}" for key, value in overrides.items() if key != "seed"]
        variant = ",".join(chosen) or name
        trials.append(Trial(f"{variant}/seed={fields['seed']}", variant, overrides, fields))
    for trial in trials:
        model.create(trial.config, classes=2)
    return tuple(trials)


def populations(trials: tuple[Trial, ...]) -> tuple[Population, ...]:
    """Groups trials that differ only in TRACED fields, in order of first appearance."""
    groups: dict[tuple, list[Trial]] = {}
    for trial in trials:
        static = tuple(sorted((k, v) for k, v in trial.fields.items() if k not in TRACED))
        groups.setdefault(static, []).append(trial)
    return tuple(tuple(group) for group in groups.values())


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _values(field: str, values: Any) -> tuple[Any, ...]:
    allowed = [key for key in FIELDS if key not in SHARED]
    if field not in allowed:
        raise ValueError(
            f"sweep.{field} is not a field that can be swept; choose from: {', '.join(allowed)}"
        )
    if isinstance(values, str) or not isinstance(values, tuple | list) or not values:
        raise ValueError(f"sweep.{field}={values!r} must be a list of one or more values")
    if len({repr(value) for value in values}) < len(values):
        raise ValueError(f"sweep.{field}={values!r} names a value twice")
    plain = tuple(_plain(value) for value in values)
    for value in plain:
        FIELDS[field](f"sweep.{field}", value)
    return plain
