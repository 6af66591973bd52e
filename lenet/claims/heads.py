"""Global average pooling against fully connected layers, at equal parameters and equal work."""

import functools
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from lenet import data, figures
from lenet.claims import rules
from lenet.claims.claim import Claim, Context, Finding, Studies
from lenet.claims.evidence import compare, in_points, interval_of
from lenet.templates.document import Block, Notice, Table, plot
from lenet.templates.run import Run, percent, points, span

RATES = (1e-3, 2e-3, 4e-3, 8e-3)
FEW_RATES = (1e-3, 4e-3)
# The same number of parameters as the fully connected head takes 16 times its multiply-adds, and
# so half as many rates are tried.
HEADS: dict[str, dict[str, Any]] = {
    "dense": {"head": "dense"},
    "dense + dropout": {"head": "dense", "dropout": 0.5},
    "GAP, equal work": {"head": "gap", "widths": (6, 20, 120, 84)},
    "GAP, equal parameters": {"head": "gap", "widths": (30, 80, 120, 84)},
}
# Epochs by number of training images; and the images in all that are presented in colour.
EPOCHS, COLOR_IMAGES = {1_000: 36, 10_000: 9}, 60_000
GAPS = tuple(name for name in HEADS if name.startswith("GAP"))
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}


def studies(context: Context) -> Studies:
    """Four heads on each data set, with few and with many training images."""
    if context.quick:
        return {"heads-mnist": _study(context, {"dataset": "mnist_5k"}, {500: 1}, 500)}
    found = {
        f"heads-{dataset}": _study(context, {"dataset": dataset}, EPOCHS, 10_000)
        for dataset in ("mnist", "fashion_mnist")
    }
    color = _color(context.color_dir)
    if color is not None:
        fields = {"dataset": "cifar10", "data_dir": context.color_dir}
        most = min(10_000, 4 * color // 5)
        found["heads-cifar10"] = _study(
            context, fields, {most: COLOR_IMAGES // most}, min(10_000, color - most)
        )
    return found


@functools.cache
def _color(color_dir: str) -> int | None:
    """How many training images of CIFAR-10 there are, None if it cannot be had."""
    try:
        return len(data.load("cifar10", color_dir or None).train_labels)
    except ConnectionError:
        return None


def _study(
    context: Context, fields: Mapping[str, str], sizes: Mapping[int, int], validation: int
) -> ConfigDict:
    quick = context.quick
    variants = {}
    for size, epochs in sizes.items():
        for name, choices in HEADS.items():
            rates = FEW_RATES if name == GAPS[1] else RATES
            variants[_variant(name, size)] = {
                **choices,
                "train_examples": size,
                "num_epochs": epochs,
                "learning_rate": rates[:1] if quick else rates,
            }
    return context.study(
        **fields,
        batch_size=32,
        variants=variants,
        sweep={"seed": (0, 1) if quick else (0, 1, 2, 3)},
        tune=("learning_rate",),
        tune_seeds=(1000,),
        validation_examples=validation,
    )


def _variant(head: str, size: int) -> str:
    return f"{head}, {size:,} images"


def _sizes(run: Run) -> list[int]:
    found = {trial["overrides"]["train_examples"] for trial in run.summary["trials"]}
    return sorted(found)


def examine(context: Context) -> tuple[Finding, ...]:
    """Differences of errors in every data set and at every size."""
    runs = {study: context.run(study) for study in studies(context)}
    cases = [(study, size) for study, run in runs.items() for size in _sizes(run)]
    found = []
    for gap, against, how in (
        (GAPS[0], "dense", "as many multiply-adds as the fully connected head"),
        (GAPS[1], "dense", "as many parameters as the fully connected head"),
        (GAPS[1], "dense + dropout", "as many parameters as the fully connected head with dropout"),
    ):
        differences = {
            (study, size): compare(runs[study], _variant(gap, size), _variant(against, size))
            for study, size in cases
        }
        verdicts = [rules.below(interval_of(each)) for each in differences.values()]
        rows = [
            figures.Difference(
                f"{_title(runs[study])}, {size:,}",
                each.difference or 0.0,
                interval_of(each),
                verdict != rules.UNDECIDED,
            )
            for ((study, size), each), verdict in zip(differences.items(), verdicts, strict=True)
        ]
        title = (
            f"{gap}: better than {against} in {verdicts.count(rules.SUPPORTED)}, worse in "
            f"{verdicts.count(rules.REFUTED)} of {len(verdicts)}"
        )
        picture = figures.differences(
            rows, title=title, xlabel="test error, GAP minus fully connected (points)"
        )
        name = f"heads-{'work' if gap == GAPS[0] else 'parameters'}" + (
            "-dropout" if "dropout" in against else ""
        )
        told = "; ".join(
            f"{_title(runs[study])}, {size:,} images: {in_points(each)}"
            for (study, size), each in differences.items()
        )
        found.append(
            Finding(
                f"Global average pooling with {how} predicts better.",
                "In each data set and at each size of the training set, the paired difference of "
                "test errors, GAP minus fully connected, each at its own rate, speaks for GAP if "
                "its interval lies below 0 and against it if above. Supported, or refuted, if more "
                "than half of the cases do.",
                rules.majority(verdicts),
                f"Differences in points: {told}.",
                (
                    plot(
                        name,
                        picture,
                        title,
                        "A row a data set and number of training images; filled where the 95 % "
                        "interval does not hold 0.",
                    ),
                ),
            )
        )
    last = found[-1]
    notes = _notes(context, runs)
    found[-1] = Finding(
        last.statement,
        last.rule,
        last.verdict,
        last.evidence,
        (*last.blocks, _table(runs), *notes),
    )
    return tuple(found)


def _title(run: Run) -> str:
    return TITLES.get(run.dataset["name"]) or str(run.dataset["name"])


def _table(runs: Mapping[str, Run]) -> Block:
    rows = []
    for run in runs.values():
        for size in _sizes(run):
            for head in HEADS:
                entry = next(
                    each for each in run.summary["variants"] if each["name"] == _variant(head, size)
                )
                model = run.summary["models"][entry["name"]]
                rows.append(
                    (
                        _title(run),
                        f"{size:,}",
                        head,
                        f"{model['parameters']:,}",
                        f"{model['multiply_adds']:,}",
                        f"{entry['tuned']['learning_rate']:g}",
                        f"{points(entry['test_error_mean'])} ({span(entry['test_error_ci95'])})",
                    )
                )
    header = (
        "data set",
        "images",
        "head",
        "parameters",
        "multiply-adds",
        "rate",
        "test error, %",
    )
    return Table(header, tuple(rows))


def _notes(context: Context, runs: Mapping[str, Run]) -> tuple[Block, ...]:
    if context.quick:
        return ()
    if "heads-cifar10" not in runs:
        return (Notice("**CIFAR-10 could not be had**, and is not among the cases."),)
    dataset = runs["heads-cifar10"].dataset
    total = dataset["train_examples"] + dataset["validation_examples"]
    if total >= 50_000:
        return ()
    worst = max(v["test_error_mean"] for v in runs["heads-cifar10"].summary["variants"])
    return (
        Notice(
            f"**A part of CIFAR-10**: the colour images are {dataset['name']}, "
            f"{dataset['test_examples']:,} of them to test on, with errors of up to "
            f"{percent(worst, 0)}. They must not be compared with those published for the whole."
        ),
    )


CLAIM = Claim(
    name="heads",
    title="Global average pooling in place of fully connected layers",
    statement="Networks that do well, such as ResNet and GoogLeNet, have global average pooling in "
    "place of fully connected layers, and usually predict better for it.",
    original="「一些性能优异的网络模型如 ResNet 和 GoogLeNet 等均采用全局平均池化(global average "
    "pooling, GAP) 取代 FC 来融合学到的深度特征……用 GAP 替代 FC 的网络通常有较好的预测性能。」",
    method="LeNets whose head is fully connected, with and without dropout, and LeNets that "
    "average each map of s4 and have an output layer alone: one with as many multiply-adds, one "
    "with as many parameters, which takes 16 times the multiply-adds. Batches of 32, "
    f"{EPOCHS[1_000]} epochs of 1,000 images or {EPOCHS[10_000]} of 10,000; each has its rate "
    "chosen on validation images, for each data set and each size of the training set. At LeNet's "
    "own widths and on all of MNIST, `configs/gap.py` compares them.",
    examine=examine,
    studies=studies,
)
