"""What a run found out, as `summary.json` holds it."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lenet.model import ModelSummary
from lenet.population import PARTS, Result, finite
from lenet.statistics import (
    compare_pairs,
    compare_path,
    compare_variants,
    factor_effects,
    mean_interval,
)
from lenet.sweep import Trial, Values


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one trial came to at its last epoch.

    Attributes:
        trial: the trial.
        diverged: whether its loss was ever not finite.
        loss: mean loss in nats by part: train, validation, test; None where there is none.
        error: share of misclassified images, likewise.
        prediction: the class given to each test image.
        probability: the probability given to it.
    """

    trial: Trial
    diverged: bool
    loss: Mapping[str, float | None]
    error: Mapping[str, float | None]
    prediction: np.ndarray
    probability: np.ndarray


def outcomes(trials: Sequence[Trial], results: Sequence[Result]) -> tuple[Outcome, ...]:
    """The outcome of each trial, in their order, out of the results of their populations."""
    where = {str(name): (result, i) for result in results for i, name in enumerate(result.ids)}
    found = []
    for trial in trials:
        result, index = where[trial.id]
        loss = dict(zip(PARTS, map(finite, result.loss[index]), strict=True))
        error = dict(zip(PARTS, map(finite, result.error[index]), strict=True))
        diverged = bool(result.diverged[index]) or loss["train"] is None
        found.append(
            Outcome(
                trial,
                diverged,
                loss,
                error,
                result.prediction[index],
                result.probability[index],
            )
        )
    return tuple(found)


def summarize(
    final: Sequence[Outcome],
    tuning: Sequence[Outcome],
    chosen: Mapping[str, Values],
    results: Sequence[Result],
    dataset: Mapping[str, Any],
    models: Mapping[str, ModelSummary],
    path: Sequence[str] = (),
    references: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Everything of a summary but the command and the clock.

    Args:
        final: the outcomes to report.
        tuning: those that chose the tuned values.
        chosen: the tuned values of each variant.
        results: of all populations, for their times.
        dataset: what `dataset.json` says.
        models: the network of each variant.
        path: variants, each to be compared with the one before it.
        references: of a variant, those to be compared with it.
    """
    trained = sum(result.train_seconds for result in results)
    epochs = sum(outcome.trial.fields["num_epochs"] for outcome in (*final, *tuning))
    done = [outcome for outcome in final if not outcome.diverged]
    errors: dict[str, dict[int, float]] = {variant: {} for variant in models}
    for outcome in done:
        errors[outcome.trial.variant][outcome.trial.seed] = outcome.error["test"] or 0.0
    seconds = {
        str(name): result.train_seconds / len(result.ids)
        for result in results
        for name in result.ids
    }
    factors = [
        (
            outcome.trial.overrides,
            outcome.trial.seed,
            None if outcome.diverged else outcome.error["test"],
        )
        for outcome in final
    ]
    return {
        "dataset": dict(dataset),
        "environment": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("jax", "flax", "optax")},
            "platform": jax.devices()[0].platform,
            "device_kind": jax.devices()[0].device_kind,
            "device_count": jax.device_count(),
        },
        "timing": {
            "compile_seconds": sum(result.compile_seconds for result in results),
            "train_seconds": trained,
            "seconds_per_trial_epoch": trained / epochs,
            "trial_epochs": epochs,
        },
        "trials": [
            {
                "id": outcome.trial.id,
                "variant": outcome.trial.variant,
                "overrides": dict(outcome.trial.overrides),
                "seed": outcome.trial.seed,
                "status": "diverged" if outcome.diverged else "done",
                "epochs": outcome.trial.fields["num_epochs"],
                "parameters": models[outcome.trial.variant].parameters,
                "train_error": outcome.error["train"],
                "validation_error": outcome.error["validation"],
                "test_error": outcome.error["test"],
                "test_loss": outcome.loss["test"],
            }
            for outcome in final
        ],
        "variants": [
            _variant(name, list(errors[name].values()), final, seconds) for name in models
        ],
        "comparisons": compare_variants(errors),
        "path": compare_path(errors, path),
        "references": {
            reference: compare_pairs(errors, [(variant, reference) for variant in compared])
            for reference, compared in (references or {}).items()
        },
        "effects": factor_effects(factors),
        "tuning": _tuning(tuning, chosen),
        "models": {variant: dataclasses.asdict(model) for variant, model in models.items()},
    }


def _variant(
    name: str, errors: list[float], final: Sequence[Outcome], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """What one variant came to; `seconds` is each trial's equal share of its population's time."""
    mean, interval = mean_interval(errors) if errors else (None, None)
    own = [outcome.trial for outcome in final if outcome.trial.variant == name]
    return {
        "name": name,
        "n": len(errors),
        "test_error_mean": mean,
        "test_error_ci95": interval,
        "tuned": dict(own[0].tuned),
        "diverged": len(own) - len(errors),
        "train_seconds": float(np.mean([seconds[trial.id] for trial in own])),
    }


def _tuning(tuning: Sequence[Outcome], chosen: Mapping[str, Values]) -> list[dict[str, Any]]:
    settings: dict[tuple[str, tuple], list[Outcome]] = {}
    for outcome in tuning:
        key = (outcome.trial.variant, tuple(outcome.trial.tuned.items()))
        settings.setdefault(key, []).append(outcome)
    return [
        {
            "variant": variant,
            "overrides": dict(setting),
            "seeds": [outcome.trial.seed for outcome in group],
            "validation_errors": [validation_error(outcome) for outcome in group],
            "validation_error_mean": _mean([validation_error(outcome) for outcome in group]),
            "diverged": sum(outcome.diverged for outcome in group),
            "chosen": dict(setting) == dict(chosen[variant]),
        }
        for (variant, setting), group in settings.items()
    ]


def validation_error(outcome: Outcome) -> float | None:
    """The validation error of a trial; None if it diverged."""
    return None if outcome.diverged else outcome.error["validation"]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
