"""What a report says of a run with a single trial."""

import numpy as np

from lenet import figures
from lenet.templates import shared
from lenet.templates.document import Block, Facts, Notice, Row, Section, Text, plot
from lenet.templates.run import Run, diverged, duration, number, percent, plural, wilson_interval

SETTING = {
    "activation": "{}",
    "pooling": "{} pooling",
    "head": "{} head",
    "optimizer": "{}",
    "learning_rate": "learning rate {:g}",
    "batch_size": "batches of {}",
    "num_epochs": "{} epochs",
    "seed": "seed {}",
}


def headline(run: Run) -> str:
    """The title."""
    trial = run.summary["trials"][0]
    outcome = "diverged" if diverged(trial) else f"{percent(trial['test_error'])} test error"
    return f"LeNet on {run.dataset_title}: {outcome}"


def overview(run: Run) -> Section:
    """The test error, what it means and what it does not."""
    trial = run.summary["trials"][0]
    config = {**run.config, **trial["overrides"]}
    setting = ", ".join(
        phrase.format(config[field]) for field, phrase in SETTING.items() if field in config
    )
    facts = [
        (str(trial["epochs"]), "epochs"),
        (duration(run.summary["timing"]["train_seconds"]), "of training"),
        (f"{trial['parameters']:,}", "parameters"),
    ]
    closing: tuple[Block, ...] = (
        Text(shared.dataset_sentence(run)),
        Text(f"Setting: {setting}. Everything else is in the config at the end."),
    )
    if diverged(trial):
        notice = Notice(
            f"**This run diverged**: in epoch {run.epoch_of_divergence(trial['id'])} its loss was "
            "no longer finite, so there is no error to report. A smaller learning rate is the "
            "first thing to try."
        )
        return Section("Result", (*shared.notices(run), notice, Facts(tuple(facts)), *closing))
    images = run.dataset["test_examples"]
    errors = round(trial["test_error"] * images)
    low, high = wilson_interval(errors, images)
    wrong = (percent(trial["test_error"]), f"test error: {errors:,} of {images:,} images")
    fitted = (percent(trial["train_error"]), "training error")
    held_out = (percent(trial["validation_error"]), "validation error")
    shown = (wrong, fitted, held_out) if trial["validation_error"] is not None else (wrong, fitted)
    return Section(
        "Result",
        (
            *shared.notices(run),
            Facts((*shown, *facts)),
            Text(
                f"**{errors:,} of the {images:,} test images are misclassified** after the last "
                f"epoch, epoch {trial['epochs']}; no better epoch was picked. This is one run "
                "with one seed (n = 1)."
            ),
            Text(
                f"95 % interval of the test error: {percent(low)} to {percent(high)} (Wilson's, "
                f"for a binomial share). It says how precisely {images:,} test images measure "
                "this one trained network; it does not say how much another seed would change "
                "the result."
            ),
            *closing,
        ),
    )


def learning(run: Run) -> Section:
    """Error and loss against epochs, of training, validation and test images."""
    trial = run.summary["trials"][0]
    epochs = np.array([line["epoch"] for line in run.metrics.get(trial["id"], ())], int)
    splits = [
        split
        for split in ("train", "test", "validation")
        if np.isfinite(run.values(trial["id"], f"{split}_loss")).any()
    ]
    after = plural(trial["epochs"], "epoch")
    titles = {
        "error": f"Test error {percent(trial['test_error'])} after {after}",
        "loss": f"Test loss {number(trial['test_loss'])} after {after}",
    }
    if diverged(trial):
        titles = dict.fromkeys(titles, f"Diverged in epoch {run.epoch_of_divergence(trial['id'])}")
    captions = {
        "error": "Share of misclassified images against epochs.",
        "loss": "Mean loss of an image against epochs.",
    }
    return Section(
        "Learning curves",
        (
            Row(
                tuple(
                    plot(
                        f"learning_curves_{quantity}",
                        figures.learning_curves(
                            [
                                figures.Curve(
                                    split, epochs, run.values(trial["id"], f"{split}_{quantity}")
                                )
                                for split in splits
                            ],
                            title=title,
                            ylabel=quantity,
                            percent=quantity == "error",
                        ),
                        f"The {quantity} against epochs. {title}.",
                        captions[quantity],
                    )
                    for quantity, title in titles.items()
                )
            ),
            Text(shared.ON_THE_FLY),
        ),
    )
