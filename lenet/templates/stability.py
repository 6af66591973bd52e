"""How far the steps of the paper's optimizer go, against the bound beyond which they diverge."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lenet import figures
from lenet.stability import BOUND
from lenet.templates.document import (
    Block,
    Bullets,
    Details,
    Plot,
    Row,
    Section,
    Table,
    Text,
    plot,
)
from lenet.templates.run import Fields, Run, diverged, number, percent, plural

TITLE = "How far the steps go"
MAX_SENTENCES = 6
# Gains below it are drawn at it: those of a saturated network are nearly 0, and have no logarithm.
FLOOR = 1e-3
NAMES = {"median": "median", "q95": "95 %", "max": "greatest"}
VALUES = ("beyond", *NAMES)


@dataclasses.dataclass(frozen=True)
class Moment:
    """The gains of one variant's trials at one time, each value a mean over them.

    Attributes:
        epoch: the pass, from 1.
        step: the step of the pass that follows, from 1.
        values: of each name in VALUES the mean.
        low: the lowest.
        high: the highest.
    """

    epoch: int
    step: int
    values: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was measured of one variant, in the order of time."""

    label: str
    moments: tuple[Moment, ...]

    def during(self, epoch: int) -> tuple[Moment, ...]:
        """All moments of a pass."""
        return tuple(moment for moment in self.moments if moment.epoch == epoch)

    @property
    def beginnings(self) -> tuple[Moment, ...]:
        """The first moment of each pass."""
        return tuple(moment for moment in self.moments if moment.step == 1)

    @property
    def worst(self) -> Moment:
        """That with most patterns beyond the bound, or with the greatest gains if none has."""
        return _worst(self.moments)


def section(run: Run) -> Section | None:
    """The gains of every variant whose metrics have them, before and during training."""
    found = [Reading(label, _moments(run, name)) for name, label in run.labels.items()]
    readings = [reading for reading in found if reading.moments]
    if not readings:
        return None
    table = _table(readings)
    if len(readings) == 1:
        sentence = _sentence(run, readings[0])
        sentences: Block = Text(sentence[:1].upper() + sentence[1:])
        numbers: Block = table
    else:
        told = tuple(f"**{reading.label}**: {_sentence(run, reading)}" for reading in readings)
        many = len(readings) > MAX_SENTENCES
        sentences = Details("In words", (Bullets(told),)) if many else Bullets(told)
        numbers = Details("The gains of every variant, in numbers", (table,))
    plots = _plots(run, readings)
    drawn = (plots[0], Row(plots[1:])) if len(plots) > 2 else plots
    lead = Text(
        f"{_verdict(readings)} A step with a gain beyond {BOUND:g} leaves the error on its own "
        "pattern greater than it was."
    )
    return Section(TITLE, (lead, *drawn, sentences, numbers, _meaning(run)))


def _moments(run: Run, variant: str) -> tuple[Moment, ...]:
    at: dict[tuple[int, int], list[Fields]] = {}
    for trial in run.trials_of(variant):
        lines = run.metrics.get(trial["id"], ())
        last = run.epoch_of_divergence(trial["id"]) if diverged(trial) else len(lines)
        for line in lines[:last]:
            done = line["step"] - line["step"] // line["epoch"] if "step" in line else 0
            for gains in line.get("step_gains") or ():
                if all(_finite(gains.get(name)) for name in VALUES):
                    at.setdefault((line["epoch"], gains["step"] - done + 1), []).append(gains)
    return tuple(
        Moment(
            epoch,
            step,
            *(
                {name: float(over([each[name] for each in gains])) for name in VALUES}
                for over in (np.mean, np.min, np.max)
            ),
        )
        for (epoch, step), gains in sorted(at.items())
    )


def _worst(moments: Sequence[Moment]) -> Moment:
    return max(moments, key=lambda moment: (moment.values["beyond"], moment.values["max"]))


def _verdict(readings: Sequence[Reading]) -> str:
    """What stands above all the rest."""
    broken = [reading for reading in readings if reading.worst.values["beyond"] > 0.5]
    beyond = f"beyond {BOUND:g}"
    if len(readings) == 1:
        return f"**{_title(readings)}.**"
    if not broken:
        return f"**At no time that was measured are most patterns {beyond}**, in any variant."
    names = "; ".join(reading.label for reading in broken)
    return f"**{_title(readings)}**: {names}."


def _title(readings: Sequence[Reading]) -> str:
    if len(readings) == 1:
        worst = readings[0].worst
        return (
            f"{percent(worst.values['beyond'], 0)} of the patterns are beyond {BOUND:g} "
            f"when most are, in pass {worst.epoch}"
        )
    broken = sum(reading.worst.values["beyond"] > 0.5 for reading in readings)
    return (
        f"Most patterns are beyond {BOUND:g} at some time in {broken} of {len(readings)} variants"
    )


def _sentence(run: Run, reading: Reading) -> str:
    """The course of the gain, from the first pattern to the last pass."""
    first, worst = reading.moments[0], reading.worst
    last = (reading.beginnings or reading.moments)[-1]

    def told(moment: Moment) -> str:
        return (
            f"{number(moment.values['median'])} in the median and "
            f"{number(moment.values['max'])} at most, with "
            f"{percent(moment.values['beyond'], 0)} of the patterns beyond {BOUND:g}"
        )

    begun = (first.epoch, first.step) == (1, 1)
    begin = "before the first step" if begun else _when(run, first)
    text = f"{begin} the gain is {told(first)}"
    if worst is not first:
        text += f"; it is at its worst {_when(run, worst)}: {told(worst)}"
    if last not in (first, worst):
        text += f". Pass {last.epoch}, the last, begins with {told(last)}"
    return f"{text}."


def _when(run: Run, moment: Moment) -> str:
    if moment.step == 1:
        return f"at the beginning of pass {moment.epoch}"
    return f"before {_unit(run)} {moment.step:,} of pass {moment.epoch}"


def _table(readings: Sequence[Reading]) -> Table:
    rows = []
    for reading in readings:
        first_pass = reading.during(1)
        chosen = [
            ("before the first step", [moment for moment in first_pass if moment.step == 1]),
            ("worst of pass 1", [moment for moment in first_pass if moment.step > 1]),
            ("worst of a later pass", reading.moments[len(first_pass) :]),
            ("beginning of the last pass", reading.beginnings[1:][-1:]),
        ]
        for what, moments in chosen:
            if moments:
                moment = _worst(moments)
                rows.append(
                    (
                        *((reading.label,) if len(readings) > 1 else ()),
                        what,
                        str(moment.epoch),
                        f"{moment.step:,}",
                        *(number(moment.values[name]) for name in NAMES),
                        percent(moment.values["beyond"], 1),
                    )
                )
    header = ("when", "pass", "before step", *NAMES.values(), f"beyond {BOUND:g}")
    return Table(("variant", *header) if len(readings) > 1 else header, tuple(rows))


def _plots(run: Run, readings: Sequence[Reading]) -> tuple[Plot, ...]:
    """The gain against passes, and within each pass in which it was measured more than once."""
    unit = _unit(run)
    wanted: list[tuple[str, str, str, str, list[figures.Curve]]] = [
        (
            "gain_passes",
            _title(readings),
            "passes",
            "of the steps that each pass begins with",
            _curves(readings, lambda reading: reading.beginnings, lambda moment: moment.epoch - 1),
        )
    ]
    for epoch in sorted({moment.epoch for reading in readings for moment in reading.moments}):
        wanted.append(
            (
                f"gain_pass_{epoch}",
                f"The gain in pass {epoch}, against its {unit}s",
                f"{unit} of pass {epoch}",
                f"of steps in pass {epoch}, by the number of the {unit}",
                _curves(
                    readings,
                    lambda reading, epoch=epoch: reading.during(epoch),
                    lambda moment: moment.step,
                ),
            )
        )
    seeds = ": means over seeds, with bands from the lowest to the highest"
    if len(run.summary["trials"]) == len(run.labels):
        seeds = ", of one seed" if len(run.labels) == 1 else ", each of one seed"
    over = "over the patterns"
    if len(readings) > 1:
        over = "that one pattern in twenty exceeds, a line a variant,"
    return tuple(
        plot(
            name,
            figures.learning_curves(
                curves,
                title=title,
                ylabel="gain of a step" if len(readings) == 1 else "gain of a step, 95 %",
                xlabel=xlabel,
                log_x=name != "gain_passes",
                references={f"bound: {BOUND:g}": BOUND},
            ),
            f"The gain {of}. {_title(readings)}.",
            f"The gain {over} {of}{seeds}. What is less than {FLOOR:g} is drawn there.",
        )
        for name, title, xlabel, of, curves in wanted
        if max((len(curve.x) for curve in curves), default=0) > 1
    )


def _curves(
    readings: Sequence[Reading],
    moments_of: Callable[[Reading], Sequence[Moment]],
    x_of: Callable[[Moment], int],
) -> list[figures.Curve]:
    """The gains of the only variant, or of each variant the one in twenty."""
    lines = [(NAMES[name], readings[0], name) for name in reversed(NAMES)]
    if len(readings) > 1:
        lines = [(reading.label, reading, "q95") for reading in readings]
    curves = []
    for label, reading, name in lines:
        moments = moments_of(reading)
        mean, low, high = (
            np.maximum([values[name] for values in each], FLOOR)
            for each in (
                [moment.values for moment in moments],
                [moment.low for moment in moments],
                [moment.high for moment in moments],
            )
        )
        curves.append(figures.Curve(label, np.array([*map(x_of, moments)], int), mean, low, high))
    return curves


def _meaning(run: Run) -> Text:
    lines = [line for lines in run.metrics.values() for line in lines]
    counts = [gains.get("patterns", 0) for line in lines for gains in line.get("step_gains") or ()]
    text = (
        "A step on a pattern leaves 1 - gain of the pattern's error along the direction that it "
        f"changes most, as far as the loss is quadratic: up to 1 it comes nearer, beyond {BOUND:g} "
        "it ends further off than it began. The gain is the largest eigenvalue of "
        "H^(1/2) (sum_k eps_k J_k J_k^T) H^(1/2): eps_k = eta / (mu + h_k) is the step of a "
        "parameter, J_k what it does to the last layer that has parameters, H the second "
        "derivative of the loss by that layer, which is 2 for loss (8). The network's own second "
        "derivatives are left out (Gauss-Newton). "
        f"It is measured on the same {plural(max(counts), 'training image')} throughout, before "
        "the first step of each pass, with the curvature estimated then, and before a few more of "
        "the first two."
    )
    if (batch := run.config.get("batch_size", 1)) > 1:
        text += (
            f" Steps are made on {batch} patterns, and their mean has a smaller gain or the same."
        )
    return Text(text)


def _unit(run: Run) -> str:
    return "pattern" if run.config.get("batch_size", 1) == 1 else "step"


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
