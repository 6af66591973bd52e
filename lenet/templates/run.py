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
    "mnist_holdout": "MNIST, images held out",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR-10",
}
MISSING = "-"
# How one speaks of a choice; of any other field, its name and the value.
PHRASES = {
    "activation": "{}",
    "pooling": "{} pooling",
    "connections": "{} connections",
    "head": "{} head",
    "optimizer": "{}",
}
SELF_EVIDENT = ("subsampling", "stride")

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

    @property
    def labels(self) -> Mapping[str, str]:
        """Of each variant a short name: `activation=tanh,pooling=max` is `tanh + max`."""
        names = [variant["name"] for variant in self.summary["variants"]]
        short = {name: _shortened(name) for name in names}
        return short if len(set(short.values())) == len(names) else {name: name for name in names}

    @property
    def tuned_fields(self) -> tuple[str, ...]:
        """The fields that were chosen per variant on the validation images."""
        chosen = [variant.get("tuned") or {} for variant in self.summary["variants"]]
        tried = [entry["overrides"] for entry in self.summary.get("tuning") or ()]
        return tuple(dict.fromkeys(field for fields in (*chosen, *tried) for field in fields))

    @property
    def factors(self) -> Mapping[str, tuple[Any, ...]]:
        """The swept fields that distinguish variants, with the values that each has.

        Where variants are declared, what they say themselves is no factor.
        """
        swept = self.config.get("sweep", {}) if self.config.get("variants") else None
        levels: dict[str, list[Any]] = {}
        for trial in self.summary["trials"]:
            for field, value in trial["overrides"].items():
                if swept is not None and field not in swept:
                    continue
                if field not in ("seed", *self.tuned_fields):
                    values = levels.setdefault(field, [])
                    if value not in values:
                        values.append(value)
        return {field: tuple(values) for field, values in levels.items() if len(values) > 1}

    def trials_of(self, variant: str) -> list[Fields]:
        """The summary's entries of one variant's trials."""
        return [trial for trial in self.summary["trials"] if trial["variant"] == variant]

    def fields_of(self, variant: str) -> Fields:
        """The config of one variant's trials, resolved but for the seed."""
        overrides: Fields = next((trial["overrides"] for trial in self.trials_of(variant)), {})
        variants = self.summary["variants"]
        tuned: Fields = next((v["tuned"] for v in variants if v["name"] == variant), {})
        return {**self.config, **overrides, **(tuned or {})}

    def values(self, trial: str, field: str) -> Float[np.ndarray, " epochs"]:
        """One field of a trial's metrics, epoch by epoch, NaN where there is no number."""
        values = [line.get(field) for line in self.metrics.get(trial, ())]
        return np.array([np.nan if value is None else value for value in values], float)

    def value_at(self, trial: str, field: str, epoch: int) -> float | None:
        """One field of a trial's metrics in one epoch, None where there is no number."""
        lines = self.metrics.get(trial, ())
        return next((line.get(field) for line in lines if line["epoch"] == epoch), None)

    def epoch_of_divergence(self, trial: str) -> int:
        """The first epoch whose training loss was not finite."""
        losses = self.values(trial, "train_loss")
        flags = [bool(line.get("diverged")) for line in self.metrics.get(trial, ())]
        lost = np.flatnonzero(~np.isfinite(losses) | np.array(flags, bool))
        return int(self.metrics[trial][lost[0]]["epoch"]) if len(lost) else len(flags)


@dataclasses.dataclass(frozen=True, eq=False)
class Portrait:
    """What one trained network looks like inside.

    Attributes:
        variant: its variant.
        seed: its seed.
        kernels: of the first layer.
        layers: of c1 s2 c3 s4 the maps of one image, map height width; empty without the image.
        f6: its mean over the test images of each class, as a bitmap; None without codes or images.
    """

    variant: str
    seed: int
    kernels: Float[np.ndarray, "size size in_channel out_channel"]
    layers: Mapping[str, Float[np.ndarray, "_ _ _"]]
    f6: Float[np.ndarray, "classes 12 7"] | None = None


def diverged(trial: Fields) -> bool:
    """Whether a trial's loss stopped being finite: it then has no result, whatever is noted."""
    return trial["status"] == "diverged" or trial["test_error"] is None


def wilson_interval(errors: int, images: int) -> tuple[float, float]:
    """The 95 % interval of a share of errors, the images taken as a sample (Wilson 1927)."""
    interval = stats.binomtest(errors, images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def sentence(summary: Fields, variant: Fields, name: str = "") -> str:
    """What a run found out about one of its variants, in one line that begins with its name."""
    name = name or variant["name"]
    count, lost = variant["n"], variant["diverged"]
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
    tuned = tuned_phrases(summary, variant)
    more = [f"tuned: {', '.join(tuned)}"] if tuned else []
    more += [f"{plural(lost, 'more seed')} diverged"] if lost else []
    return "; ".join([text, *more])


def tuned_phrases(summary: Fields, variant: Fields) -> list[str]:
    """The tuned values of a variant as one speaks of them, marked where there was no choice."""
    tried = [e["overrides"] for e in summary.get("tuning") or () if e["variant"] == variant["name"]]
    return [
        phrase(field, value) + ("" if any(e[field] != value for e in tried) else " (given)")
        for field, value in (variant.get("tuned") or {}).items()
    ]


def phrase(field: str, value: Any) -> str:
    """A field's value as one speaks of it: `max pooling`, `learning rate 0.002`."""
    if value in SELF_EVIDENT:
        return str(value)
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return PHRASES.get(field, field.replace("_", " ") + " {}").format(shown)


def points(difference: float | None) -> str:
    """A difference of fractions in percentage points: 0.0012 is `0.12`."""
    return MISSING if difference is None else f"{100 * difference:.2f}".replace("-0.00", "0.00")


def span(interval: Sequence[float] | None) -> str:
    """An interval of differences in percentage points."""
    return MISSING if interval is None else f"{points(interval[0])} to {points(interval[1])}"


def p_text(p_value: float | None) -> str:
    """A p-value: `0.03`, `< 0.001`."""
    if p_value is None:
        return MISSING
    return "< 0.001" if p_value < 0.001 else f"{p_value:.2g}"


def pair(interval: Sequence[float] | None) -> tuple[float, float] | None:
    """An interval as read from JSON, as a tuple."""
    return None if interval is None else (interval[0], interval[1])


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


def _shortened(name: str) -> str:
    parts = []
    for part in re.split(r",(?=[a-z_0-9]+=)", name):
        field, equals, value = part.partition("=")
        parts.append(part if not equals else value if field in PHRASES else phrase(field, value))
    return " + ".join(parts)
