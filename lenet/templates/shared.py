"""What every report says: what is got wrong, the models, the time, how to reproduce it."""

import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from lenet import figures
from lenet.templates.document import Block, Code, Details, Notice, Section, Table, Text, plot
from lenet.templates.run import MISSING, Fields, Run, diverged, file_name, percent, plural

MAX_DRAWN_MISTAKES = 400
MIN_DRAWN_MISTAKES = 48
MAX_DRAWN_VARIANTS = 16
ON_THE_FLY = (
    "The training curves are measured on the fly, while the weights still change, so each of "
    "their points is a mean over an epoch; the others are measured at the end of each epoch."
)
TIMES = {
    "total_seconds": "from the command to the summary",
    "first_step_seconds": "from the command to the first training step",
    "import_seconds": "importing",
    "data_seconds": "loading the data",
    "compile_seconds": "compiling",
    "train_seconds": "training, without compiling and evaluating",
    "seconds_per_trial_epoch": "training, per trial and epoch",
}


def notices(run: Run) -> tuple[Notice, ...]:
    """What a reader must know before they compare the numbers with others."""
    sizes = f"{run.dataset['train_examples']:,} training and {run.dataset['test_examples']:,} test"
    found = []
    if run.dataset["name"] == "mnist_5k":
        found.append(
            f"**Not MNIST, but a subset of it**: this run used `mnist_5k`, {sizes} images out of "
            "70,000. Its errors must not be compared with those published for MNIST."
        )
    if run.config.get("holdout"):
        found.append(
            "**The test images were not used**: what is called a test error here is of "
            f"{run.config['holdout']:,} training images that were held out (`holdout`)."
        )
    if run.config.get("train_examples"):
        found.append(
            "**Trained on a part of the data**: the first "
            f"{plural(run.config['train_examples'], 'training image')} (`train_examples`)."
        )
    return tuple(Notice(text) for text in found)


def dataset_sentence(run: Run) -> str:
    """How many images of what, and where they came from."""
    dataset = run.dataset
    sizes = run.factors.get("train_examples", (dataset["train_examples"],))
    training = " or ".join(f"{size:,}" if size else "all" for size in sizes)
    return (
        f"Data: {run.dataset_title}, {training} training, "
        f"{dataset['validation_examples']:,} validation and {dataset['test_examples']:,} test "
        f"images, from {dataset['source']} (sha256 `{dataset['sha256'][:16]}`)."
    )


def confusion_counts(
    labels: Int[np.ndarray, " test"], predictions: Int[np.ndarray, " test"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """How many images of each true class (row) were given each class (column)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def drawn_mistakes(
    labels: Int[np.ndarray, " test"],
    predictions: Int[np.ndarray, " test"],
    probabilities: Float[np.ndarray, " test"],
    variants: int = 1,
) -> Int[np.ndarray, " mistakes"]:
    """The test images to draw: every mistake, or the most confident ones if there are too many.

    Too many are `MAX_DRAWN_MISTAKES` over all variants, but never fewer than `MIN_DRAWN_MISTAKES`
    of each. They are ordered by true class, and within it from the most to the least confident.
    """
    most = max(MAX_DRAWN_MISTAKES // variants, MIN_DRAWN_MISTAKES)
    mistakes = np.flatnonzero(labels != predictions)
    mistakes = mistakes[np.argsort(-probabilities[mistakes], kind="stable")][:most]
    return mistakes[np.argsort(labels[mistakes], kind="stable")]


def drawn_variants(run: Run) -> tuple[str, ...]:
    """The variants of which one network is drawn: all, or of too many the ends and the best.

    Too many are more than `MAX_DRAWN_VARIANTS`; the ends are those of `config.path`, if there is
    one, and else the first and the last.
    """
    names = tuple(run.labels)
    if len(names) <= MAX_DRAWN_VARIANTS:
        return names
    means = {
        variant["name"]: variant["test_error_mean"]
        for variant in run.summary["variants"]
        if variant["test_error_mean"] is not None
    }
    path = run.config.get("path") or names
    kept = {path[0], path[-1], *([min(means, key=means.__getitem__)] if means else ())}
    return tuple(name for name in names if name in kept)


def representatives(run: Run) -> tuple[Fields, ...]:
    """Of each of `drawn_variants`, the first trial that did not diverge."""
    drawn = drawn_variants(run)
    first: dict[str, Fields] = {}
    for trial in run.summary["trials"]:
        if trial["variant"] in drawn and not diverged(trial) and trial["id"] in run.trials:
            first.setdefault(trial["variant"], trial)
    return tuple(first.values())


def mean_curve(run: Run, variant: str, field: str, label: str) -> figures.Curve | None:
    """The mean over a variant's seeds that finished, epoch by epoch, and from where to where.

    None if no seed has finished with numbers in this field.
    """
    finished = [
        trial["id"]
        for trial in run.trials_of(variant)
        if not diverged(trial) and np.isfinite(run.values(trial["id"], field)).any()
    ]
    if not finished:
        return None
    length = min(len(run.metrics[trial]) for trial in finished)
    values = np.stack([run.values(trial, field)[:length] for trial in finished])
    return figures.Curve(
        label,
        np.array([line["epoch"] for line in run.metrics[finished[0]][:length]], int),
        values.mean(0),
        values.min(0) if len(finished) > 1 else None,
        values.max(0) if len(finished) > 1 else None,
    )


def mistakes(
    run: Run, images: UInt8[np.ndarray, "test height width channel"] | str
) -> Section | None:
    """The confusion matrix and every misclassified test image, of one trial of each variant.

    Args:
        run: the run.
        images: the test images, or the reason why there are none.
    """
    shown = representatives(run)
    if not shown:
        return None
    if len(run.summary["trials"]) == 1:
        return Section("What it gets wrong", _mistakes_of(run, shown[0], images))
    headings = [
        f"What {run.labels[trial['variant']]} gets wrong, with seed {trial['seed']}"
        for trial in shown
    ]
    if len(run.summary["variants"]) == 1:
        return Section(headings[0], _mistakes_of(run, shown[0], images))
    folded = []
    for trial, heading in zip(shown, headings, strict=True):
        wrong = run.test_predictions[run.trials.index(trial["id"])] != run.test_labels
        summary = f"{heading}: {plural(int(wrong.sum()), 'mistake')}"
        folded.append(Details(summary, _mistakes_of(run, trial, images)))
    return Section("Mistakes of one network of each variant", tuple(folded))


def _mistakes_of(
    run: Run,
    trial: Fields,
    images: UInt8[np.ndarray, "test height width channel"] | str,
) -> tuple[Block, ...]:
    several = len(run.summary["trials"]) > 1
    suffix = f"_{file_name(trial['variant'])}" if several else ""
    row = run.trials.index(trial["id"])
    labels, predictions = run.test_labels, run.test_predictions[row]
    names = run.dataset["class_names"]
    counts = confusion_counts(labels, predictions, len(names))
    wrong = int((labels != predictions).sum())
    title = _most_frequent_mistake(counts, names)
    blocks: list[Block] = [
        plot(
            f"confusion{suffix}",
            figures.confusion_matrix(counts, names, title=title),
            f"Confusion matrix. {title}.",
            "Counts of test images, a row a true class, a column a predicted one. The stronger "
            "the colour of a cell off the diagonal, the more frequent the mistake.",
        )
    ]
    if not wrong:
        blocks.append(Text("No test image is misclassified."))
    elif isinstance(images, str):
        blocks.append(Notice(f"**The misclassified images are not drawn.** {images}"))
    else:
        drawn = drawn_mistakes(
            labels, predictions, run.test_probabilities[row], len(representatives(run))
        )
        between = "" if max(map(len, names)) <= 2 else "\n"
        captions = [
            f"{names[labels[index]]}{between}→{names[predictions[index]]} "
            f"{100 * run.test_probabilities[row, index]:.0f} %"
            for index in drawn
        ]
        title = f"{wrong:,} of {len(labels):,} test images are misclassified"
        caption = "Every misclassified test image"
        if wrong > len(drawn):
            title += f"; here the {len(drawn)} most confidently"
            caption = (
                f"The {len(drawn)} mistakes of {wrong:,} that the network was most confident of; "
                "the others are not drawn"
            )
        blocks.append(
            plot(
                f"misclassified{suffix}",
                figures.image_grid(images[drawn], captions, title=title),
                f"A grid of images. {title}.",
                f"{caption}. Under each its label, then what the network takes it for, with the "
                "probability it gives that. Ordered by label, the most confident mistakes first.",
                wide=True,
                paper=images.shape[-1] == 1,
            )
        )
    return tuple(blocks)


def models(run: Run) -> Section:
    """What the networks are made of; variants that share their numbers share a table."""
    different: dict[str, tuple[Fields, list[str]]] = {}
    for variant, model in run.summary["models"].items():
        different.setdefault(json.dumps(model, sort_keys=True), (model, []))[1].append(variant)
    counts = ("parameters", "connections", "multiply_adds")
    blocks: list[Block] = []
    for model, variants in different.values():
        if len(different) > 1:
            blocks.append(
                Text(f"**{'; '.join(run.labels.get(variant, variant) for variant in variants)}**")
            )
        known = [count for count in counts if count in model]
        rows = [
            (
                layer["name"],
                "x".join(map(str, layer["output_shape"])),
                str(layer["receptive_field"] or MISSING),
                *(f"{layer[count]:,}" for count in known),
            )
            for layer in model["layers"]
        ]
        total = ("total", "", "", *(f"{model[count]:,}" for count in known))
        headings = [count.replace("_", "-") for count in known]
        blocks += [
            Table(("layer", "output", "receptive field", *headings), (*rows, total)),
            Text(
                f"{percent(model['fully_connected_share'], 1)} of the parameters belong to fully "
                "connected layers. All counts are those of one image, forward; a receptive field "
                "is the side of the square of pixels that one unit sees."
            ),
        ]
    return Section("Model", tuple(blocks))


def timing(run: Run) -> Section:
    """How long it took, and on what."""
    seconds = run.summary["timing"]
    times = tuple(
        (what, f"{seconds[field]:,.2f}")
        for field, what in TIMES.items()
        if seconds.get(field) is not None
    )
    environment = tuple(
        (field.replace("_", " "), str(value)) for field, value in run.summary["environment"].items()
    )
    return Section(
        "Time and environment",
        (Table(("time", "seconds"), times), Table(("environment", ""), environment)),
    )


def reproduce(run: Run) -> Section:
    """The command and the config."""
    command, config_file = run.summary.get("command"), run.config.get("config_file")
    blocks: list[Block] = []
    if command:
        blocks.append(Code(command, "sh"))
    elif config_file:
        blocks += [
            Code(f"python main.py --config={config_file}", "sh"),
            Text(
                "Fields of the config that this file does not set were given on the command line."
            ),
        ]
    return Section(
        "How to reproduce",
        (
            *blocks,
            Text(
                "Initial weights and the order of the images follow from the seed: the same "
                "config gives the same numbers on the same kind of device with the same versions."
            ),
            Details(
                "The resolved config",
                (Code(json.dumps(run.config, indent=2, ensure_ascii=False), "json"),),
            ),
        ),
    )


def _most_frequent_mistake(counts: Int[np.ndarray, "classes classes"], names: Sequence[str]) -> str:
    wrong = counts - np.diag(np.diag(counts))
    most = int(wrong.max())
    if not most:
        return "No mistakes"
    pairs = np.argwhere(wrong == most)
    if len(pairs) > 1:
        return f"No mistake is made more than {plural(most, 'time')}"
    true, predicted = pairs[0]
    return (
        f"Most frequent mistake: {names[true]} taken for {names[predicted]}, {plural(most, 'time')}"
    )
