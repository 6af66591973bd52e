"""From a config to trials, and from trials to populations.

A trial is one fully resolved config. `config.sweep` maps fields to values, of which the product is
run; `config.variants` maps names to overrides, each crossed with the sweep. Fields that
`config.tune` names are tuned: every variant is first trained with each of their values, those of
the sweep or a tuple of its own, on the seeds `config.tune_seeds` and with
`config.validation_examples` held out; the values with the least mean validation error are then
trained on all training images, on the seeds of the sweep. A variant with one value has no choice,
and is not trained to make it.

Variants and swept values come in the order in which the config declares them.

Trials that differ only in TRACED fields, which are inputs of the compiled program, train together
as one population.
"""

import dataclasses
import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from lenet import model
from lenet.fields import COMPARING, DECLARING, FIELDS, SHARED, TRACED
from lenet.losses import OF_DISTANCES


@dataclasses.dataclass(frozen=True)
class Trial:
    """One model to train.

    Attributes:
        id: its name, unique in the run: the variant and the seed.
        variant: what it shares with the trials that differ from it only in the seed.
        stage: `tune` if it is trained to choose the values of tuned fields, else `final`.
        overrides: the fields that the sweep and the variant set, and their values.
        tuned: the tuned fields and their values.
        fields: every field of its config, resolved.
    """

    id: str
    variant: str
    stage: str
    overrides: Mapping[str, Any]
    tuned: Mapping[str, Any]
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
Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A variant to train with one seed, all but the values of its tuned fields.

    Attributes:
        settings: the combinations of tuned values to choose from; one empty one if none are tuned.
    """

    variant: str
    seed: int
    overrides: Values
    settings: tuple[Values, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a config declares.

    Attributes:
        base: every field, before any override.
        cells: the trials to report, in order.
        tune: the fields whose values are tuned.
        tune_seeds: the seeds to choose them with.
        path: variants, each to be compared with the one before it.
        references: of a variant, those to be compared with it.
    """

    base: Values
    cells: tuple[Cell, ...]
    tune: tuple[str, ...]
    tune_seeds: tuple[int, ...]
    path: tuple[str, ...]
    references: Mapping[str, tuple[str, ...]]

    @property
    def tuning(self) -> tuple[Trial, ...]:
        """The trials that choose the tuned values, of each variant that has a choice."""
        variants = {cell.variant: cell for cell in self.cells if len(cell.settings) > 1}
        return tuple(
            self._trial(cell, seed, setting, "tune")
            for cell in variants.values()
            for setting in cell.settings
            for seed in self.tune_seeds
        )

    def final(self, chosen: Mapping[str, Values]) -> tuple[Trial, ...]:
        """The trials to report, given the tuned values of each variant, or with its first."""
        return tuple(
            self._trial(cell, cell.seed, chosen.get(cell.variant, cell.settings[0]), "final")
            for cell in self.cells
        )

    def _trial(self, cell: Cell, seed: int, setting: Values, stage: str) -> Trial:
        fields = {**self.base, **cell.overrides, **setting, "seed": seed}
        name = cell.variant
        if stage == "tune":
            name = ",".join([f"tune/{name}", *(f"{k}={v}" for k, v in setting.items())])
        elif self.tune:
            fields["validation_examples"] = 0
        overrides = {**cell.overrides, "seed": seed}
        return Trial(f"{name}/seed={seed}", cell.variant, stage, overrides, setting, fields)


def plan(config: ConfigDict, name: str) -> Plan:
    """What a config called `name` declares, every field and value of it checked.

    Raises:
        ValueError: if a field or a value is not valid, naming it and what is.
    """
    for field in config:
        if field not in FIELDS and field not in (*DECLARING, *COMPARING):
            near = difflib.get_close_matches(field, FIELDS, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"{field!r} is not a field{hint}; the fields are: {', '.join(FIELDS)}")
    for field in (*FIELDS, *DECLARING):
        if field not in config:
            raise ValueError(f"the config lacks the field {field!r}; start from configs/base.py")
    base = {field: _plain(config[field]) for field in FIELDS}
    for field, value in base.items():
        FIELDS[field](field, value)
    sweep = {field: _values(field, values) for field, values in config.sweep.items()}
    tune = _plain(config.tune)
    if not isinstance(tune, tuple):
        raise ValueError(f"tune={tune!r} must be a list of fields")
    variants = {
        variant: _overrides(variant, overrides, sweep, tune, base)
        for variant, overrides in config.variants.items()
    } or {"": {}}
    _check_tuning(config, tune, sweep, variants)
    seeds = sweep.pop("seed", (base["seed"],))
    common = {field: sweep.pop(field) for field in tune if field in sweep}
    cells = tuple(
        Cell(
            _named(variant, swept) or name,
            seed,
            {**{field: v for field, v in overrides.items() if field not in tune}, **swept},
            _product({field: overrides.get(field) or common[field] for field in tune}),
        )
        for variant, overrides in variants.items()
        for swept in _product(sweep)
        for seed in seeds
    )
    names = tuple(dict.fromkeys(cell.variant for cell in cells))
    planned = Plan(
        base,
        cells,
        tune,
        tuple(config.tune_seeds),
        _path(config.get("path", ()), names),
        _references(config.get("references", {}), names),
    )
    for trial in (*planned.tuning, *planned.final({})):
        network = model.create(trial.config, classes=2)
        for field in ("init_layers", "frozen"):
            model.check_layers(network, trial.fields[field], field)
        loss, head = trial.fields["loss"], trial.fields["head"]
        if loss in OF_DISTANCES and head != "rbf":
            raise ValueError(
                f"loss={loss!r} is of distances to codes, which only head='rbf' gives, not "
                f"{head!r}; choose loss='cross_entropy' or head='rbf'"
            )
    return planned


def choose(
    tuning: Sequence[Trial], validation_errors: Mapping[str, float | None]
) -> dict[str, Values]:
    """The tuned values of each variant with the least mean validation error.

    Args:
        tuning: the trials of `Plan.tuning`.
        validation_errors: by trial id; None for one that diverged, which counts as all wrong.
    """
    errors: dict[str, dict[tuple, list[float]]] = {}
    for trial in tuning:
        error = validation_errors[trial.id]
        setting = tuple(trial.tuned.items())
        found = errors.setdefault(trial.variant, {}).setdefault(setting, [])
        found.append(1.0 if error is None else error)
    best: dict[str, Values] = {}
    for variant, settings in errors.items():
        sums = {setting: sum(found) for setting, found in settings.items()}
        best[variant] = dict(min(sums.items(), key=lambda item: item[1])[0])
    return best


def populations(
    trials: Sequence[Trial], known: Sequence[Sequence[str]] = ()
) -> tuple[Population, ...]:
    """Groups trials that differ only in TRACED fields, in order of first appearance.

    Args:
        trials: the trials to train.
        known: the ids of populations that have been begun. They stay as they are, and come first;
            only the other trials are grouped anew.
    """
    by_id = {trial.id: trial for trial in trials}
    begun = [tuple(by_id[i] for i in ids) for ids in known if all(i in by_id for i in ids)]
    taken = {trial.id for group in begun for trial in group}
    groups: dict[tuple, list[Trial]] = {}
    for trial in trials:
        if trial.id not in taken:
            static = tuple(sorted((k, v) for k, v in trial.fields.items() if k not in TRACED))
            groups.setdefault(static, []).append(trial)
    return (*begun, *(tuple(group) for group in groups.values()))


def extends(held: Plan, wanted: Plan) -> bool:
    """Whether a plan is another one with trials or comparisons added, and trains the rest alike."""
    return (
        held.base == wanted.base
        and held.tune == wanted.tune
        and held.tune_seeds == wanted.tune_seeds
        and all(cell in wanted.cells for cell in held.cells)
    )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _named(variant: str, swept: Values) -> str:
    """The name of a variant with swept values: the same in whatever order these are declared."""
    return ",".join([*([variant] if variant else []), *(f"{k}={swept[k]}" for k in sorted(swept))])


def _product(values: Mapping[str, tuple[Any, ...]]) -> tuple[Values, ...]:
    return tuple(
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    )


def _sweepable(field: str, where: str) -> None:
    allowed = [key for key in FIELDS if key not in SHARED]
    if field not in allowed:
        raise ValueError(
            f"{where}.{field} is not a field that can be swept; choose from: {', '.join(allowed)}"
        )


def _values(field: str, values: Any, where: str = "sweep") -> tuple[Any, ...]:
    _sweepable(field, where)
    if isinstance(values, str) or not isinstance(values, tuple | list) or not values:
        raise ValueError(f"{where}.{field}={values!r} must be a list of one or more values")
    if len({repr(value) for value in values}) < len(values):
        raise ValueError(f"{where}.{field}={values!r} names a value twice")
    plain = tuple(_plain(value) for value in values)
    for value in plain:
        FIELDS[field](f"{where}.{field}", value)
    return plain


def _overrides(
    variant: str,
    overrides: Any,
    sweep: Mapping[str, Any],
    tune: Sequence[str],
    base: Values,
) -> dict[str, Any]:
    """The value of each field of a variant; of a field that is tuned, a tuple of its values."""
    where = f"variants.{variant}"
    if not isinstance(overrides, ConfigDict | dict):
        raise ValueError(f"{where}={overrides!r} must map fields to values")
    plain = {field: _plain(value) for field, value in overrides.items()}
    for field, value in plain.items():
        _sweepable(field, where)
        if field == "seed":
            raise ValueError(f"{where}.seed: seeds are swept, with sweep.seed")
        several = _several(value, base[field])
        if field in tune:
            plain[field] = _values(field, value if several else (value,), where)
            continue
        if field in sweep:
            raise ValueError(
                f"{where}.{field}: {field} is swept as well; take it out of one of them"
            )
        if several:
            raise ValueError(
                f"{where}.{field}={value!r} has several values; to choose one of them, name "
                f"{field} in tune"
            )
        FIELDS[field](f"{where}.{field}", value)
    return plain


def _several(value: Any, single: Any) -> bool:
    """Whether a value is a tuple of values of a field; one value of `widths` is a tuple too."""
    if not isinstance(value, tuple):
        return False
    if not isinstance(single, tuple):
        return True
    return bool(value) and all(isinstance(each, tuple | list) for each in value)


def _check_tuning(
    config: ConfigDict,
    tune: Sequence[str],
    sweep: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, Any]],
) -> None:
    for field in tune:
        lacking = [variant for variant, overrides in variants.items() if field not in overrides]
        if field == "seed" or (field not in sweep and lacking == [""]):
            swept = ", ".join(key for key in sweep if key != "seed") or "nothing but seeds"
            raise ValueError(f"tune={field!r} is not swept; the sweep has: {swept}")
        _sweepable(field, "tune")
        if field not in sweep and lacking:
            raise ValueError(
                f"variants.{lacking[0]} lacks values of {field}, which tune names and the sweep "
                f"has not; give it variants.{lacking[0]}.{field}, or all variants sweep.{field}"
            )
    if tune:
        seeds = _plain(config.tune_seeds)
        if not (isinstance(seeds, tuple) and seeds):
            raise ValueError(f"tune_seeds={seeds!r} must be a list of one or more seeds")
        for seed in seeds:
            FIELDS["seed"]("tune_seeds", seed)
        both = set(seeds) & set(sweep.get("seed", (config.seed,)))
        if both:
            raise ValueError(
                f"tune_seeds={seeds!r} and the seeds of the sweep share {sorted(both)}; what is "
                "chosen with a seed must be tested with others"
            )
        if not config.validation_examples:
            raise ValueError(
                "tune needs validation images to choose on: set validation_examples, to 10000 say"
            )


def _path(value: Any, names: Sequence[str]) -> tuple[str, ...]:
    return _named_variants("path", value, names, 2) if value else ()


def _references(value: Any, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, ConfigDict | dict):
        raise ValueError(f"references={value!r} must map a variant to a list of variants")
    found = {}
    for reference, compared in value.items():
        where = f"references.{reference}"
        _named_variants("references", (reference,), names)
        found[reference] = _named_variants(where, compared, names)
        if reference in found[reference]:
            raise ValueError(f"{where} compares {reference!r} with itself; take it out")
    return found


def _named_variants(
    where: str, value: Any, names: Sequence[str], least: int = 1
) -> tuple[str, ...]:
    found = _plain(value)
    if not isinstance(found, tuple) or len(found) < least:
        count = "two" if least == 2 else "one"
        raise ValueError(f"{where}={value!r} must be a list of {count} or more variants")
    for name in found:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"{where} names {name!r}, which is no variant{hint}; there are: {', '.join(names)}"
            )
    if len(set(found)) < len(found):
        raise ValueError(f"{where}={value!r} names a variant twice")
    return found
