"""What a report says of a run with several trials: variants, and each of them with its seeds."""

import collections

import numpy as np

from lenet import figures
from lenet.templates import shared
from lenet.templates.document import (
    Block,
    Bullets,
    Details,
    Facts,
    Plot,
    Row,
    Section,
    Table,
    Text,
    plot,
)
from lenet.templates.run import (
    MISSING,
    Fields,
    Run,
    diverged,
    duration,
    number,
    pair,
    percent,
    plural,
    sentence,
    tuned_phrases,
)

MAX_SENTENCES = 6
# Published test errors on MNIST, each of a single network: who, and the error.
REFERENCES = {
    "LeNet-5, 1998": 0.0095,
    "ReLU and max, Keras": 0.0090,
    "tanh and max, Adam, rasbt/deeplearning-models": 0.0107,
}


def headline(run: Run) -> str:
    """The title."""
    trials, variants = run.summary["trials"], run.summary["variants"]
    outcome = f"{plural(len(variants), 'variant')}, {plural(len(trials), 'trial')}"
    if len(variants) == 1 and variants[0]["test_error_mean"] is not None:
        mean = percent(variants[0]["test_error_mean"])
        outcome = f"{mean} mean test error over {plural(variants[0]['n'], 'seed')}"
    return f"LeNet on {run.dataset_title}: {outcome}"


def overview(run: Run) -> Section:
    """A sentence a variant, and what the numbers mean."""
    trials, variants, labels = run.summary["trials"], run.summary["variants"], run.labels
    lost = sum(diverged(trial) for trial in trials)
    facts = [(str(len(variants)), "variants")] if len(variants) > 1 else []
    facts.append((str(len(trials)), "trials"))
    best = _best(run)
    if best is not None:
        lowest = (
            "mean test error"
            if len(variants) == 1
            else f"lowest mean test error: {labels[best['name']]}"
        )
        facts.insert(0, (percent(best["test_error_mean"]), lowest))
    facts.append((duration(run.summary["timing"]["train_seconds"]), "of training, all trials"))
    if lost:
        facts.append((str(lost), "diverged"))
    meaning = (
        f"Every error is the share of all {run.dataset['test_examples']:,} test images after the "
        "trial's last epoch; no better epoch was picked. Intervals are 95 % intervals of the mean "
        "over seeds."
    )
    if len(variants) > 1:
        meaning += (
            " Whether two variants differ is not decided by which mean is lower, nor by whether "
            "their intervals overlap."
        )
    return Section(
        "Result",
        (
            *shared.notices(run),
            Facts(tuple(facts)),
            _variants(run),
            *_unlearned(run),
            Text(meaning),
            Text(shared.dataset_sentence(run)),
        ),
    )


def _unlearned(run: Run) -> tuple[Text, ...]:
    """Which trials are no better than a constant answer; they count in the means all the same."""
    images = len(run.test_labels)
    guess = images - int(np.bincount(run.test_labels).max())
    lost = [
        trial["variant"]
        for trial in run.summary["trials"]
        if not diverged(trial) and round(trial["test_error"] * images) >= guess
    ]
    if not lost:
        return ()
    counts = collections.Counter(lost)
    each = ", ".join(
        f"{run.labels[variant]} ({count} of {len(run.trials_of(variant))})"
        for variant, count in counts.items()
    )
    return (
        Text(
            f"**{plural(len(lost), 'trial')} learned nothing**: {each}. Naming the most frequent "
            f"class, whatever the image, has a test error of {percent(guess / images)} as well, or "
            "a lower one. They have not diverged and count in all means."
        ),
    )


def errors(run: Run) -> Section:
    """The final test error of every trial."""
    labels = run.labels
    rows = [
        figures.ErrorsOfVariant(
            label=labels[variant["name"]],
            errors=tuple(
                trial["test_error"]
                for trial in run.trials_of(variant["name"])
                if not diverged(trial)
            ),
            mean=variant["test_error_mean"],
            interval=pair(variant["test_error_ci95"]),
            diverged=variant["diverged"],
        )
        for variant in run.summary["variants"]
    ]
    best = _best(run)
    if best is None:
        title = "Every trial diverged"
    elif len(rows) == 1:
        title = f"Mean test error {percent(best['test_error_mean'])}"
    else:
        lowest = percent(best["test_error_mean"])
        title = f"{labels[best['name']]} has the lowest mean test error: {lowest}"
    references = REFERENCES if _is_whole_mnist(run) else {}
    caption = (
        "Dots: the test error of each seed. Diamond and bar under them: their mean and its 95 % "
        "interval. Trials that diverged have no error; they are counted at the right."
    )
    if references:
        caption += " Lines: published results on MNIST, each of one network."
    fields = ("train_error", "validation_error", "test_error")
    table = tuple(
        (
            labels[trial["variant"]],
            str(trial["seed"]),
            trial["status"],
            str(trial["epochs"]),
            *(percent(None if diverged(trial) else trial[field]) for field in fields),
            number(None if diverged(trial) else trial["test_loss"]),
        )
        for trial in run.summary["trials"]
    )
    return Section(
        "Test error of every trial",
        (
            plot(
                "test_error",
                figures.errors_by_variant(rows, title=title, references=references),
                f"Test error of every trial. {title}.",
                caption,
            ),
            Details(
                "Every trial, in numbers",
                (
                    Table(
                        (
                            "variant",
                            "seed",
                            "status",
                            "epochs",
                            "training error",
                            "validation error",
                            "test error",
                            "test loss",
                        ),
                        table,
                    ),
                ),
            ),
        ),
    )


def learning(run: Run) -> Section:
    """Test error and training loss against epochs, a line a variant with a band over its seeds."""
    band = ""
    if len(run.summary["variants"]) <= len(figures.SERIES):
        band = ", the band goes from the lowest to the highest of them"
    text = (
        f"The line is the mean over the seeds that finished{band}. The training loss is measured "
        "on the fly, while the weights still change; the test error at the end of each epoch."
    )
    lost = [
        f"{run.labels[trial['variant']]} with seed {trial['seed']} (in epoch "
        f"{run.epoch_of_divergence(trial['id'])})"
        for trial in run.summary["trials"]
        if diverged(trial)
    ]
    if lost:
        text += f" Diverged, and not in these curves: {', '.join(lost)}."
    return Section(
        "Learning curves",
        (
            Row(
                (
                    _curves(run, "test_error", "test error", True),
                    _curves(run, "train_loss", "training loss", False),
                )
            ),
            Text(text),
        ),
    )


def _curves(run: Run, field: str, what: str, as_percent: bool) -> Plot:
    names = [variant["name"] for variant in run.summary["variants"]]
    drawn = [shared.mean_curve(run, name, field, run.labels[name]) for name in names]
    found = [curve for curve in drawn if curve is not None]
    if not found:
        title = "Every trial diverged"
    else:
        lowest = min(found, key=lambda curve: float(curve.values[-1]))
        end = float(lowest.values[-1])
        value = percent(end) if as_percent else number(end)
        title = (
            f"Mean {what} {value} at the end"
            if len(found) == 1
            else f"Lowest {what} at the end: {lowest.label}, {value}"
        )
    figure = figures.learning_curves(found, title=title, ylabel=what, percent=as_percent)
    alternative = f"The {what} against epochs, a line a variant. {title}."
    return plot(f"learning_curves_{field}", figure, alternative, f"Mean {what} against epochs.")


def _best(run: Run) -> Fields | None:
    finished = [
        variant for variant in run.summary["variants"] if variant["test_error_mean"] is not None
    ]
    return min(finished, key=lambda variant: variant["test_error_mean"], default=None)


def _is_whole_mnist(run: Run) -> bool:
    return run.dataset["name"] == "mnist" and not run.config.get("train_examples")


def _variants(run: Run) -> Block:
    """What came out of each variant: in sentences, or as a table if they are many."""
    variants = run.summary["variants"]
    if len(variants) <= MAX_SENTENCES:
        return Bullets(tuple(f"{_variant_sentence(run, variant)}." for variant in variants))
    tuned = any(variant.get("tuned") for variant in variants)
    rows = []
    for variant in variants:
        low, high = variant["test_error_ci95"] or (None, None)
        settings = ", ".join(tuned_phrases(run.summary, variant))
        rows.append(
            (
                run.labels[variant["name"]],
                percent(variant["test_error_mean"]),
                MISSING if low is None else f"{percent(low)} to {percent(high)}",
                str(variant["n"]),
                str(variant["diverged"]),
                *((settings,) if tuned else ()),
            )
        )
    header = ("variant", "mean test error", "95 % interval", "seeds", "diverged")
    return Table((*header, "tuned") if tuned else header, tuple(rows))


def _variant_sentence(run: Run, variant: Fields) -> str:
    label = run.labels[variant["name"]]
    return f"**{label}**" + sentence(run.summary, variant, label)[len(label) :]
