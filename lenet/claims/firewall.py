"""Are fully connected layers a firewall in transfer? Near and far targets, few labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.ndimage
from jaxtyping import Int, UInt8
from ml_collections import ConfigDict

from lenet import data, figures, statistics
from lenet.claims import rules
from lenet.claims.claim import Claim, Context, Finding, Studies
from lenet.claims.evidence import errors_of, in_points, interval_of, paired
from lenet.files import write_atomically
from lenet.templates.document import Block, Table, plot
from lenet.templates.run import Run, points, span

HEADS: dict[str, dict[str, Any]] = {
    "dense": {"head": "dense"},
    "GAP": {"head": "gap", "widths": (12, 32, 120, 84)},
}
KEPT = {"dense": ("c1", "c3", "c5", "f6"), "GAP": ("c1", "c3")}
WAYS = ("fine-tuned", "frozen", "from scratch")
# Labels a class, and the epochs that are gone through them.
SIZES = {10: 10, 50: 6, 100: 5}
FAR = {"MNIST to Fashion": "mnist", "Fashion to MNIST": "fashion_mnist"}
NEAR = {"MNIST to shifted": "mnist", "MNIST to rotated": "mnist", "MNIST to inverted": "mnist"}
VALIDATION, TEST = 1000, 2000
TURN = 45
SHIFT = 6
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
# The target that the rates are chosen on, each head's and each way's own, for all targets alike.
RATES_FROM = "MNIST to rotated"

Images = UInt8[np.ndarray, "image height width channel"]


def _slug(target: str) -> str:
    return f"firewall-{target.lower().replace(' ', '-')}"


def _targets(context: Context) -> dict[str, str]:
    return {RATES_FROM: "mnist"} if context.quick else {**NEAR, **FAR}


def _sizes(context: Context) -> dict[int, int]:
    return {10: 1} if context.quick else SIZES


def studies(context: Context) -> Studies:
    """The sources, the choice of the rates, then each target."""
    quick = context.quick
    found: dict[str, ConfigDict] = {}
    for source in ("mnist",) if quick else ("mnist", "fashion_mnist"):
        found[f"firewall-source-{source}"] = context.study(
            **({} if quick else {"dataset": source, "data_dir": ""}),
            variants={
                "dense": {**HEADS["dense"], "learning_rate": 4e-3},
                "GAP": {**HEADS["GAP"], "learning_rate": 8e-3},
            },
            sweep={"seed": (0, 1) if quick else (0, 1, 2, 3, 4, 5)},
            num_epochs=1 if quick else 2,
        )
    if not quick:
        found["firewall-rates"] = _target(context, RATES_FROM, {50: SIZES[50]}, {})
    chosen = _chosen(context)
    for target in _targets(context):
        found[_slug(target)] = _target(context, target, _sizes(context), chosen)
    return found


def _target(
    context: Context, target: str, sizes: Mapping[int, int], chosen: Mapping[str, float]
) -> ConfigDict:
    """One target's study: with the rates chosen before, or to choose them."""
    source = str(context.where(f"firewall-source-{_targets(context)[target]}"))
    choosing = not chosen and not context.quick
    variants = {}
    for size, epochs in sizes.items():
        for head, choices in HEADS.items():
            for way in WAYS:
                fields: dict[str, Any] = {
                    **choices,
                    "train_examples": 10 * size,
                    "num_epochs": epochs,
                    "learning_rate": RATES if choosing else chosen.get(_way(head, way), 1e-3),
                }
                if way != "from scratch":
                    fields |= {
                        "init_from": source,
                        "init_variant": head,
                        "init_layers": KEPT[head],
                    }
                if way == "frozen":
                    fields["frozen"] = ("c1", "c3")
                variants[_variant(head, way, size)] = fields
    several = (0, 1) if context.quick else (0, 1, 2, 3, 4, 5)
    return context.study(
        dataset=_slug(target),
        data_dir=str(_images_of(context, target)),
        batch_size=5,
        variants=variants,
        sweep={"seed": several[:1] if choosing else several},
        tune=("learning_rate",) if choosing else (),
        tune_seeds=(1000, 1001),
        validation_examples=VALIDATION if choosing else 0,
    )


def _way(head: str, way: str) -> str:
    return f"{head}, {way}"


def _variant(head: str, way: str, size: int) -> str:
    return f"{_way(head, way)}, {size} a class"


def _chosen(context: Context) -> dict[str, float]:
    """The rate of each head and way; none before the study that chooses them."""
    if context.quick or not (context.where("firewall-rates") / "summary.json").is_file():
        return {}
    run = context.run("firewall-rates")
    return {
        entry["name"].rpartition(",")[0]: entry["tuned"]["learning_rate"]
        for entry in run.summary["variants"]
    }


def _images_of(context: Context, target: str) -> str:
    return str(context.folder / "data" / f"{_slug(target)}.npz")


def few_of_each(labels: Int[np.ndarray, " image"], most: int) -> Int[np.ndarray, " chosen"]:
    """Indices of the first `most` images of each class, in turns: 0 1 2 ... 9 0 1 2 ...

    So the first `n` times the number of classes have `n` of each.
    """
    by_class = [np.flatnonzero(labels == each)[:most] for each in np.unique(labels)]
    return np.stack(by_class, axis=1).reshape(-1)


def transformed(
    images: Images, target: str, seed: int
) -> UInt8[np.ndarray, "image padded_height padded_width channel"]:
    """Padded images as a target has them: shifted, rotated, inverted, or as they are."""
    padded = data.pad(images)
    random = np.random.default_rng(seed)
    if target.endswith("inverted"):
        return 255 - padded
    if target.endswith("shifted"):
        moves = random.integers(-SHIFT, SHIFT + 1, (len(padded), 2))
        each = [
            scipy.ndimage.shift(image, (*move, 0), order=0)
            for image, move in zip(padded, moves, strict=True)
        ]
        return np.stack(each)
    if target.endswith("rotated"):
        turns = random.uniform(-TURN, TURN, len(padded))
        each = [
            scipy.ndimage.rotate(image, turn, reshape=False, order=1)
            for image, turn in zip(padded, turns, strict=True)
        ]
        return np.stack(each)
    return padded


def prepare(context: Context) -> None:
    """Writes the targets as image sets: few labels of each class, validation and test images."""
    for target in _targets(context):
        path = context.folder / "data" / f"{_slug(target)}.npz"
        if path.is_file():
            continue
        name = "fashion_mnist" if target == "MNIST to Fashion" else "mnist"
        whole = data.load("mnist_5k" if context.quick else name)
        most = max(_sizes(context))
        few = few_of_each(whole.train_labels, most)
        # The last of the training images, which are not among the few.
        rest = np.arange(len(whole.train_labels) - VALIDATION, len(whole.train_labels))
        train = np.concatenate([few, np.setdiff1d(rest, few)])
        arrays = {
            "train_images": transformed(whole.train_images[train], target, 0),
            "train_labels": whole.train_labels[train].astype(np.uint8),
            "test_images": transformed(whole.test_images[:TEST], target, 1),
            "test_labels": whole.test_labels[:TEST].astype(np.uint8),
        }
        write_atomically(path, lambda file, arrays=arrays: np.savez(file, **arrays))


def examine(context: Context) -> tuple[Finding, ...]:
    """What a fully connected head adds, near and far from the source."""
    runs = {target: context.run(_slug(target)) for target in _targets(context)}
    sizes = _sizes(context)
    far = [target for target in runs if target in FAR] or list(runs)
    near = [target for target in runs if target in NEAR]

    def gain(target: str, way: str, size: int) -> dict[int, float]:
        """GAP's error minus that of the fully connected head, seed by seed."""
        with_fc = errors_of(runs[target], _variant("dense", way, size))
        without = errors_of(runs[target], _variant("GAP", way, size))
        return {seed: without[seed] - with_fc[seed] for seed in with_fc.keys() & without.keys()}

    literal = {
        (target, size): _alone(gain(target, "fine-tuned", size)) for target in far for size in sizes
    }
    wider = {
        size: paired(
            _mean([gain(target, "fine-tuned", size) for target in far]),
            _mean([gain(target, "fine-tuned", size) for target in near]),
        )
        for size in sizes
    }
    beyond = {
        (target, size): paired(gain(target, "fine-tuned", size), gain(target, "from scratch", size))
        for target in far
        for size in sizes
    }
    verdicts = {
        name: [rules.above(interval_of(each)) for each in found.values()]
        for name, found in (("literal", literal), ("wider", wider), ("beyond", beyond))
    }
    rows = [
        figures.Difference(
            f"{target}, {size} a class",
            each.difference or 0.0,
            interval_of(each),
            rules.above(interval_of(each)) != rules.UNDECIDED,
        )
        for target in runs
        for size in sizes
        for each in [_alone(gain(target, "fine-tuned", size))]
    ]
    wins = sum((row.difference > 0) and row.established for row in rows)
    title = f"Fine-tuned, fully connected layers are better in {wins} of {len(rows)} cases"
    picture = figures.differences(
        rows, title=title, xlabel="test error, GAP minus fully connected (points)"
    )
    return (
        Finding(
            "Where the target differs much from the source, a network without fully connected "
            "layers is worse after fine-tuning than one with them.",
            "For each far target and number of labels, the paired difference of errors, GAP minus "
            "fully connected, speaks for it if its interval lies above 0. Supported, or refuted, "
            "if more than half of the cases do.",
            rules.majority(verdicts["literal"]),
            _told(literal),
            (
                plot(
                    "firewall-gains",
                    picture,
                    title,
                    "All layers trained on. To the right the fully connected head is better; "
                    "filled where the 95 % interval does not hold 0.",
                ),
                _table(runs, sizes),
            ),
        ),
        Finding(
            "Fully connected layers matter more, the farther the target is from the source.",
            "For each number of labels, the difference above, mean over far targets, minus its "
            "mean over near ones, paired over seeds, speaks for it if its interval lies above 0. "
            "By majority.",
            rules.majority(verdicts["wider"]) if near and far != near else rules.UNDECIDED,
            "Points: "
            + "; ".join(f"{size} a class {in_points(each)}" for size, each in wider.items())
            + ".",
        ),
        Finding(
            "Fully connected layers protect what was learned: they gain more by the transfer than "
            "global average pooling does.",
            "A network that is better anyway proves nothing of a firewall. For each far target and "
            "number of labels, the difference above, fine-tuned minus trained from scratch on the "
            "same labels, speaks for it if its interval lies above 0. By majority.",
            rules.majority(verdicts["beyond"]),
            _told(beyond),
            (_scratch_plot(runs, far, sizes),),
        ),
    )


def _alone(values: Mapping[int, float]) -> statistics.Comparison:
    return paired(values, dict.fromkeys(values, 0.0))


def _mean(each: list[dict[int, float]]) -> dict[int, float]:
    if not each:
        return {}
    seeds = set.intersection(*(set(found) for found in each))
    return {seed: float(np.mean([found[seed] for found in each])) for seed in seeds}


def _told(found: Mapping[tuple[str, int], statistics.Comparison]) -> str:
    told = "; ".join(
        f"{target}, {size} a class: {in_points(each)}" for (target, size), each in found.items()
    )
    return f"Points: {told}."


def _table(runs: Mapping[str, Run], sizes: Mapping[int, int]) -> Block:
    rows = []
    for target, run in runs.items():
        entries = {entry["name"]: entry for entry in run.summary["variants"]}
        for size in sizes:
            for head in HEADS:
                told = [
                    f"{points(entry['test_error_mean'])} ({span(entry['test_error_ci95'])})"
                    for way in WAYS
                    for entry in [entries[_variant(head, way, size)]]
                ]
                rows.append((target, f"{size}", head, *told))
    header = ("target", "labels a class", "head", *(f"{way}, %" for way in WAYS))
    return Table(header, tuple(rows))


def _scratch_plot(runs: Mapping[str, Run], far: list[str], sizes: Mapping[int, int]) -> Block:
    rows = []
    for target in far:
        for head in HEADS:
            for size in sizes:
                tuned, scratch = (
                    errors_of(runs[target], _variant(head, way, size))
                    for way in ("fine-tuned", "from scratch")
                )
                found = paired(scratch, tuned)
                rows.append(
                    figures.Difference(
                        f"{target}, {head}, {size} a class",
                        found.difference or 0.0,
                        interval_of(found),
                        rules.above(interval_of(found)) != rules.UNDECIDED,
                    )
                )
    helped = sum((row.difference > 0) and row.established for row in rows)
    title = f"A far source has helped in {helped} of {len(rows)} cases"
    drawn = figures.differences(
        rows, title=title, xlabel="test error, from scratch minus fine-tuned (points)"
    )
    return plot(
        "firewall-transfer",
        drawn,
        title,
        "To the right, fine-tuned is better than from scratch; filled where the 95 % interval does "
        "not hold 0.",
    )


CLAIM = Claim(
    name="firewall",
    title="Fully connected layers as a firewall in transfer",
    statement="Fully connected layers act as a firewall when what was learned is transferred: if "
    "the target's images differ much from the source's, a network without them is worse after "
    "fine-tuning than one with them.",
    original="「FC 可在模型能力迁移过程中充当「防火墙」。如果目标域与源域图像差异较大，不含 FC "
    "的网络微调后的结果差于含 FC 的网络。」",
    method="LeNets with a fully connected head, and with global average pooling and twice the "
    "maps, are trained on MNIST and on Fashion-MNIST. From each seed's network a new one begins, "
    "all but its output layer, and is trained on 10, 50 or 100 labels a class of a target: near "
    "(MNIST shifted by up to 6 pixels, rotated by up to 45 degrees, or inverted) or far (the other "
    "data set); all layers (fine-tuned), or with c1 and c3 frozen; and one from scratch on the "
    "same labels. Rates were chosen on validation images of the rotated target with 50 labels a "
    "class, each head's and way's own. All seeds have the same labelled images, so that the "
    "intervals do not cover the luck of those; errors are of 2,000 test images.",
    examine=examine,
    studies=studies,
    prepare=prepare,
)
