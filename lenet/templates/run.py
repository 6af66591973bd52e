"""What a report is drawn from, and how its numbers are written."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

TITLES = {
    "mnist": "MNIST",
    "mnist_5k": "the subset mnist_5k",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR-10",
}
MISSING = "-"

Fields = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What a finished run left in its workdir.

    Attributes:
        config: `config.json`.
        dataset: `dataset.json`.
        summary: `summary.json`.
        metrics: of each trial's id, its lines of `metrics.jsonl` in the order of the epochs.
        trials: the ids of the trials that the predictions are of.
        test_probabilities: what each trial gave the class it predicted.
    """

    config: Fields
    dataset: Fields
    summary: Fields
    metrics: Mapping[str, Sequence[Fields]]
    trials: tuple[str, ...]
    test_labels: Int[np.ndarray, " test"]
    test_predictions: Int[np.ndarray, "trials test"]
    test_probabilities: Float[np.ndarray, "trials test"]

    @property
    def dataset_title(self) -> str:
        """The data set's name as one writes it."""
        return str(TITLES.get(self.dataset["name"], self.dataset["name"]))

    def trials_of(self, variant: str) -> list[Fields]:
        """The summary's entries of one variant's trials."""
        return [trial for trial in self.summary["trials"] if trial["variant"] == variant]

    def values(self, trial: str, field: str) -> Float[np.ndarray, " epochs"]:
        """One field of a trial's metrics, epoch by epoch, NaN where there is no number."""
        values = [line.get(field) for line in self.metrics.get(trial, ())]
        return np.array([np.nan if value is None else value for value in values], float)

    def epoch_of_divergence(self, trial: str) -> int:
        """The first epoch whose training loss was not finite."""
        losses = self.values(trial, "train_loss")
        flags = [bool(line.get("diverged")) for line in self.metrics.get(trial, ())]
        lost = np.flatnonzero(~np.isfinite(losses) | np.array(flags, bool))
        return int(self.metrics[trial][lost[0]]["epoch"]) if len(lost) else len(flags)


def diverged(trial: Fields) -> bool:
    """Whether a trial's loss stopped being finite: it then has no result, whatever is noted."""
    return trial["status"] == "diverged" or trial["test_error"] is None


def wilson_interval(errors: int, images: int) -> tuple[float, float]:
    """The 95 % interval of a share of errors, the images taken as a sample (Wilson 1927)."""
    interval = stats.binomtest(errors, images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def sentence(summary: Fields, variant: Fields) -> str:
    """What a run found out about one of its variants, in one line."""
    name, count, lost = variant["name"], variant["n"], variant["diverged"]
    if variant["test_error_mean"] is None or not count:
        return f"{name}: diverged, {lost} of {plural(count + lost, 'trial')}"
    images = summary["dataset"]["test_examples"]
    error = percent(variant["test_error_mean"])
    if count == 1:
        wrong = round(variant["test_error_mean"] * images)
        text = f"{name}: test error {error} ({wrong:,} of {images:,} images, one seed)"
    elif variant["test_error_ci95"] is None:
        text = f"{name}: mean test error {error} (n = {count} seeds)"
    else:
        low, high = variant["test_error_ci95"]
        text = (
            f"{name}: mean test error {error} "
            f"(95 % interval {percent(low)} to {percent(high)}, n = {count} seeds)"
        )
    tuned = [f"{field} {value:g}" for field, value in (variant.get("tuned") or {}).items()]
    more = [f"tuned {', '.join(tuned)}"] if tuned else []
    more += [f"{plural(lost, 'more seed')} diverged"] if lost else []
    return "; ".join([text, *more])


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction as percent: 0.0084 is `0.84 %`."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f} %"


def number(value: float | None) -> str:
    """A number with three digits."""
    return MISSING if value is None else f"{value:.3g}"


def plural(count: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """`12.3 s`, `2 min 5 s`, `1 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def file_name(name: str) -> str:
    """A name with nothing in it that a path or an address gives a meaning to."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.") or "run"
