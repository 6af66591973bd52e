"""The paper of 1998 beside a run of its network: every number, and error against passes.

A variant counts as the paper's network, whatever else it departs in, where its head is `rbf`.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lenet import figures
from lenet.statistics import Comparison, mean_interval, paired_comparison
from lenet.templates import shared
from lenet.templates.document import Block, Details, Notice, Plot, Section, Table, Text, plot
from lenet.templates.run import (
    MISSING,
    Fields,
    Run,
    diverged,
    file_name,
    number,
    percent,
    phrase,
    plural,
    points,
    span,
)

TITLE = "The paper says, we get"
# Section II.B: of each layer its trainable parameters and its connections. Those of output are what
# the paper's total leaves.
LAYERS = {
    "c1": (156, 122_304),
    "s2": (12, 5_880),
    "c3": (1_516, 151_600),
    "s4": (32, 2_000),
    "c5": (48_120, 48_120),
    "f6": (10_164, 10_164),
    "output": (0, 840),
}
PARAMETERS, CONNECTIONS, MULTIPLY_ADDS = 60_000, 340_908, 401_000
# Section III, of one network. The test errors are uncertain by about 0.1 points.
TEST_ERROR, DISTORTED_TEST_ERROR, UNCERTAINTY = 0.0095, 0.008, 0.001
DISTORTED_MISTAKES = 82
PASSES = 20
TRAIN_ERROR, TRAIN_ERROR_PASS = 0.0035, 19
STABLE_PASS = 10
MNIST_EXAMPLES = 60_000
# Appendix C: the least and the greatest step eta / (mu + h) of the first pass.
STEP_SIZES = {"min": 7e-5, "max": 0.016}
QUANTILES = {
    "min": "smallest",
    "q05": "5 %",
    "median": "median",
    "q95": "95 %",
    "max": "greatest",
}
# What the paper says of fields that a config has.
DESCRIBED: Fields = {
    "normalization": "lecun",
    "activation": "scaled_tanh",
    "pooling": "subsampling",
    "connections": "table1",
    "initialization": "uniform_1998",
    "optimizer": "sdlm",
    "learning_rate": 5e-4,
    "damping": 0.02,
    "curvature_examples": 500,
    "curvature_interval": 0,
    "curvature_memory": 0.0,
    "rbf_scale": 1.0,
    "weight_decay": 0.0,
    "schedule": "passes_1998",
    "order": "constant",
    "batch_size": 1,
    "num_epochs": PASSES,
}
NOT_COMPARED = "not to be compared"

Cells = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Reading:
    """One variant, as far as it is held against the paper.

    Attributes:
        name: the variant.
        label: its short name.
        fields: its config.
        trials: the summary's entries of its trials.
        finished: those that did not diverge.
        passes: how many passes these were trained for, 0 if there are none.
        distorted: whether it was trained on distorted images.
        other_images: in what its images differ from the paper's, or nothing.
    """

    name: str
    label: str
    fields: Fields
    trials: tuple[Fields, ...]
    finished: tuple[Fields, ...]
    passes: int
    distorted: bool
    other_images: str

    @property
    def test_error(self) -> float:
        """The paper's."""
        return DISTORTED_TEST_ERROR if self.distorted else TEST_ERROR


def section(run: Run) -> Section | None:
    """What the paper says and what each variant with its output codes gives, number by number."""
    found = [_read(run, name) for name in shared.drawn_variants(run)]
    readings = [reading for reading in found if reading.fields.get("head") == "rbf"]
    if not readings:
        return None
    models = [run.summary["models"][reading.name] for reading in readings]
    common = len({json.dumps(model, sort_keys=True) for model in models}) == 1
    if len(run.labels) == 1:
        return Section(TITLE, (*_structure(models[0]), *_results(run, readings[0], "")))
    compared = [
        (reading, model)
        for reading, model in zip(readings, models, strict=True)
        if not (reading.finished and reading.other_images)
    ]
    folded = [
        Details(
            _in_a_line(run, reading),
            (
                *(() if common else _structure(model)),
                *_results(run, reading, f"_{file_name(reading.name)}"),
            ),
        )
        for reading, model in compared
    ]
    apart = len(readings) - len(compared)
    told = Text(
        f"The errors of {plural(apart, 'variant')} are {NOT_COMPARED} with the paper's, as they "
        "are of other images, or of networks trained on others."
    )
    structure = _structure(models[0]) if common else ()
    return Section(TITLE, (*structure, *folded, *([told] if apart else ())))


def lies_within(paper: float, ours: Sequence[float], uncertainty: float = 0.0) -> str:
    """Whether a number of the paper lies in the 95 % interval of the mean of ours, in words."""
    interval = _interval(ours)
    if interval is None:
        return _without_interval(len(ours))
    low, high = interval
    if low <= paper <= high:
        return "yes"
    side = "lower" if high < paper else "higher"
    if low - uncertainty <= paper <= high + uncertainty:
        return f"no: {side} (± {points(uncertainty)}: yes)"
    return f"no: ours is {side}"


def change_in_words(change: Comparison, *, rise_only: bool = False) -> str:
    """Whether a test error stayed as it was, or with `rise_only` whether it did not rise."""
    if change.ci95 is None:
        return _without_interval(change.n)
    low, high = change.ci95
    if low > 0:
        return "no: it rises"
    if rise_only:
        return "yes: no rise can be told"
    return "yes: no change can be told" if high >= 0 else "no: it still falls"


def _read(run: Run, name: str) -> Reading:
    trials = tuple(run.trials_of(name))
    finished = tuple(trial for trial in trials if not diverged(trial))
    fields = run.fields_of(name)
    examples = fields.get("train_examples") or MNIST_EXAMPLES
    held_out = run.dataset["validation_examples"]
    other = ""
    if run.dataset["name"] != "mnist":
        other = f"its images are those of {run.dataset_title}"
    elif examples < MNIST_EXAMPLES:
        other = f"it was trained on the first {plural(examples, 'image')}"
    elif held_out:
        other = f"{plural(held_out, 'training image')} were held out"
    return Reading(
        name,
        run.labels[name],
        fields,
        trials,
        finished,
        int(finished[0]["epochs"]) if finished else 0,
        fields.get("augmentation", "none") != "none",
        other,
    )


def _results(run: Run, reading: Reading, suffix: str) -> tuple[Block, ...]:
    blocks: list[Block] = [_departures(reading.fields)]
    if reading.other_images:
        blocks.append(
            Notice(
                f"**The errors are {NOT_COMPARED} with the paper's**: {reading.other_images}. The "
                f"paper trained on all {MNIST_EXAMPLES:,} images of MNIST and tested on its 10,000."
            )
        )
    if not reading.finished:
        blocks.append(_all_diverged(run, reading))
    rows = (*_error_rows(run, reading), *_step_rows(run, reading))
    if rows:
        header = ("what", "the paper", "ours", "seeds", "95 % interval", "the paper's in it")
        blocks += [Table(header, rows), Text(_how_to_read(reading))]
    steps, curves = _step_table(run, reading), _curves(run, reading, suffix)
    return (*blocks, *([steps] if steps else ()), *([curves] if curves else ()))


def _in_a_line(run: Run, reading: Reading) -> str:
    """What is folded away under it, in short."""
    if not reading.finished:
        return f"{reading.label}: every trial diverged"
    what, paper, ours, _, _, verdict = _error_rows(run, reading)[0]
    inside = verdict if verdict == NOT_COMPARED else f"in our interval: {verdict}"
    return f"{reading.label}: {what}, {ours} (the paper: {paper}; {inside})"


def _structure(model: Fields) -> tuple[Block, ...]:
    """Parameters and connections, layer by layer."""
    ours: dict[str, Fields] = {layer["name"]: layer for layer in model["layers"]}
    rows = []
    for name, stated in (*LAYERS.items(), ("total", (PARAMETERS, CONNECTIONS))):
        layer = model if name == "total" else ours.get(name, {})
        counts = (layer.get("parameters"), layer.get("connections"))
        cells = [_count(count) for each in zip(stated, counts, strict=True) for count in each]
        rows.append((name, *cells, "yes" if counts == stated else "no"))
    same = sum(row[-1] == "yes" for row in rows)
    text = (
        f"**{model['parameters']:,} trainable parameters** (the paper: {PARAMETERS:,}) and "
        f"**{_count(model.get('connections'))} connections** ({CONNECTIONS:,}); {same} of "
        f"{len(rows)} rows are the same."
    )
    if model.get("multiply_adds"):
        text += (
            f" One image forward takes {model['multiply_adds']:,} multiply-adds, every use of a "
            f"weight counted once; the paper names about {MULTIPLY_ADDS:,}."
        )
    header = (
        "layer",
        "parameters, the paper",
        "ours",
        "connections, the paper",
        "ours",
        "the same",
    )
    return (Text(text), Table(header, tuple(rows)))


def _departures(fields: Fields) -> Text:
    """In which fields a variant departs from the paper, and what the paper leaves open."""
    found = [
        f"{phrase(field, fields[field])} ({_value(value)})"
        for field, value in DESCRIBED.items()
        if field in fields and fields[field] != value
    ]
    if fields.get("augmentation") == "distortions":
        found.append("distortions drawn anew for each presentation (a fixed set of them)")
    text = "No field of the config departs from what the paper describes."
    if found:
        text = f"Departures, with what the paper describes in brackets: {', '.join(found)}."
    if loss := fields.get("loss"):
        j = f" with j = {fields['rbf_j']:g}" if loss == "rbf_map" and "rbf_j" in fields else ""
        text += f" Which loss gave its errors the paper does not say; here it is {loss}{j}."
    return Text(text)


def _error_rows(run: Run, reading: Reading) -> tuple[Cells, ...]:
    """The rows of errors, over the seeds that finished; the test error comes first."""
    if not reading.finished:
        return ()
    last = reading.passes
    errors = [float(trial["test_error"]) for trial in reading.finished]
    test = _error_row(
        reading, f"test error, pass {last}", reading.test_error, PASSES, errors, UNCERTAINTY
    )
    if reading.distorted:
        mistakes = [error * run.dataset["test_examples"] for error in errors]
        verdict = _verdict(reading, float(DISTORTED_MISTAKES), mistakes)
        counted = _row(
            "misclassified test images", str(DISTORTED_MISTAKES), mistakes, _tenths, verdict
        )
        return (test, counted, *_stability_rows(run, reading))
    rows = [test]
    passed = min(TRAIN_ERROR_PASS, last)
    again = [trial["train_error"] for trial in reading.finished]
    for what, ours in (
        (f"training error on the fly, pass {passed}", _at(run, reading, "train_error", passed)),
        (f"training error again, pass {last}", again),
    ):
        known = [float(error) for error in ours if error is not None]
        if known:
            rows.append(_error_row(reading, what, TRAIN_ERROR, TRAIN_ERROR_PASS, known))
    return (*rows, *_stability_rows(run, reading))


def _stability_rows(run: Run, reading: Reading) -> tuple[Cells, ...]:
    """The test error after ten passes, and what became of it until the last."""
    early = _at(run, reading, "test_error", STABLE_PASS)
    pairs = [
        (float(trial["test_error"]), float(error))
        for trial, error in zip(reading.finished, early, strict=True)
        if error is not None
    ]
    if reading.passes <= STABLE_PASS or not pairs:
        return ()
    after, before = ([pair[which] for pair in pairs] for which in (0, 1))
    change = paired_comparison(after, before)
    found = (points(change.difference), str(change.n), span(change.ci95))
    until = f"to pass {reading.passes}, points"
    return (
        _error_row(
            reading,
            f"test error, pass {STABLE_PASS}",
            reading.test_error,
            STABLE_PASS,
            before,
            UNCERTAINTY,
        ),
        (f"its change {until}", "stable: 0", *found, change_in_words(change)),
        (
            f"overtraining {until}",
            "none",
            *found,
            change_in_words(change, rise_only=True),
        ),
    )


def _error_row(
    reading: Reading,
    what: str,
    paper: float,
    paper_pass: int,
    ours: Sequence[float],
    uncertainty: float = 0.0,
) -> Cells:
    stated = f"{percent(paper)}, pass {paper_pass}"
    return _row(what, stated, ours, percent, _verdict(reading, paper, ours, uncertainty))


def _verdict(
    reading: Reading, paper: float, ours: Sequence[float], uncertainty: float = 0.0
) -> str:
    return NOT_COMPARED if reading.other_images else lies_within(paper, ours, uncertainty)


def _row(
    what: str, paper: str, ours: Sequence[float], show: Callable[[float], str], verdict: str
) -> Cells:
    interval = _interval(ours)
    shown = MISSING if interval is None else f"{show(interval[0])} to {show(interval[1])}"
    return (what, paper, show(float(np.mean(ours))), str(len(ours)), shown, verdict)


def _how_to_read(reading: Reading) -> str:
    text = (
        "Ours are means over seeds with 95 % intervals of the mean (Student's t). The paper's are "
        f"of one network; its test errors are uncertain by about ± {points(UNCERTAINTY)} points, "
        "which is in brackets where it reaches our interval. "
    )
    if not reading.distorted:
        text += (
            "On the fly is during the pass, while the weights still change, as in the paper's "
            "figure 5; again is after it, on all training images. "
        )
    if reading.passes > STABLE_PASS:
        text += "Changes are paired by seed; no pass was picked by its test error. "
    elif reading.finished:
        text += (
            f"The paper's test error is stable after {STABLE_PASS} passes, without overtraining; "
            f"{_passes(reading.passes)} cannot speak to that. "
        )
    lost = len(reading.trials) - len(reading.finished)
    if lost and reading.finished:
        text += f"{plural(lost, 'more seed')} diverged and {'is' if lost == 1 else 'are'} left out."
    return text.strip()


def _all_diverged(run: Run, reading: Reading) -> Notice:
    epochs = [run.epoch_of_divergence(trial["id"]) for trial in reading.trials]
    count = len(epochs)
    when = f"in pass {epochs[0]}"
    if min(epochs) < max(epochs):
        when = f"in passes {min(epochs)} to {max(epochs)}"
    return Notice(
        f"**Every trial diverged** ({count} of {count}): the loss was no longer finite {when}. "
        "There is no error to hold against the paper's."
    )


def _steps(run: Run, reading: Reading, place: int) -> list[Mapping[str, float]]:
    """The steps in the first (0) or the last pass (-1), of each trial that has them."""
    lines = [run.metrics.get(trial["id"], ()) for trial in reading.trials]
    found = [epochs[place].get("step_sizes") or {} for epochs in lines if epochs]
    return [steps for steps in found if all(_finite(steps.get(part)) for part in QUANTILES)]


def _step_rows(run: Run, reading: Reading) -> tuple[Cells, ...]:
    steps = _steps(run, reading, 0)
    rows = []
    for part, paper in STEP_SIZES.items() if steps else ():
        ours = [float(each[part]) for each in steps]
        what = f"{QUANTILES[part]} step, pass 1"
        rows.append(_row(what, f"about {number(paper)}", ours, number, lies_within(paper, ours)))
    return tuple(rows)


def _step_table(run: Run, reading: Reading) -> Table | None:
    """The steps of all parameters, in quantiles; means over seeds."""
    rows: list[Cells] = []
    for place, what in ((0, "first pass"), (-1, "last pass")):
        steps = _steps(run, reading, place)
        if steps:
            means = [number(float(np.mean([each[part] for each in steps]))) for part in QUANTILES]
            rows.append((f"{what}, ours", *means))
    if not rows:
        return None
    stated = (number(STEP_SIZES[part]) if part in STEP_SIZES else MISSING for part in QUANTILES)
    header = ("steps eta / (mu + h) of all parameters", *QUANTILES.values())
    return Table(header, (("first pass, the paper", *stated), *rows))


def _curves(run: Run, reading: Reading, suffix: str) -> Plot | None:
    """Test and training error against passes: figure 5 of the paper."""
    test = shared.mean_curve(run, reading.name, "test_error", "test")
    training = shared.mean_curve(run, reading.name, "train_error", "training")
    if test is None:
        return None
    title = f"Test error {percent(float(test.values[-1]))} after {_passes(reading.passes)}"
    at_stable = test.values[test.x == STABLE_PASS]
    if reading.passes > STABLE_PASS and len(at_stable):
        title += f", {percent(float(at_stable[0]))} after {STABLE_PASS}"
    stated = {"test, 1998": reading.test_error}
    if not reading.distorted:
        stated["training, 1998"] = TRAIN_ERROR
    figure = figures.learning_curves(
        [test, *([training] if training is not None else ())],
        title=title,
        ylabel="error",
        percent=True,
        xlabel="passes",
        references={}
        if reading.other_images
        else {f"{what}: {percent(error)}": error for what, error in stated.items()},
    )
    over = "the error of one seed."
    if len(reading.finished) > 1:
        over = (
            f"the mean over {len(reading.finished)} seeds, with bands from the lowest to the "
            "highest."
        )
    return plot(
        f"paper_passes{suffix}",
        figure,
        f"Test and training error against passes. {title}.",
        f"As in figure 5 of the paper, {over} The training error is measured on the fly, the test "
        "error after each pass.",
    )


def _at(run: Run, reading: Reading, field: str, epoch: int) -> list[float | None]:
    return [run.value_at(trial["id"], field, epoch) for trial in reading.finished]


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean; None where the values do not vary."""
    return None if min(values) == max(values) else mean_interval(values)[1]


def _without_interval(seeds: int) -> str:
    return "no interval: one seed" if seeds == 1 else "no interval: all the same"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _passes(count: int) -> str:
    return f"{count} pass{'' if count == 1 else 'es'}"


def _tenths(value: float) -> str:
    return f"{value:.1f}"


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
