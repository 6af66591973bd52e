"""A config from start to finish: trials, populations, summary, report."""

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from lenet import data as datasets
from lenet import display, population, program, report, sweep, workdir
from lenet import model as models
from lenet.files import write_atomically
from lenet.statistics import mean_interval
from lenet.sweep import Population, Trial
from lenet.templates.run import sentence

log = logging.getLogger(__name__)


def cache_compilations() -> None:
    """Keeps compiled programs in the project's cache folder, so that a second run starts sooner."""
    jax.config.update("jax_compilation_cache_dir", str(datasets.cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def use_cores_as_devices(widest: int) -> None:
    """Makes each CPU core a device, for populations that can be spread over them.

    One device a core, each with members of its own, is faster than all cores inside every
    operation. It must be said before JAX is first used; later, this does nothing.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", max(1, min(widest, cores or 1)))


def run(
    config: ConfigDict,
    name: str,
    workdir_path: str,
    *,
    overwrite: bool = False,
    command: str = "",
    began: float | None = None,
) -> dict[str, Any]:
    """Runs a config: trains its trials and writes the workdir, down to the report.

    Running again with the same config resumes, from wherever the last run stopped.

    Args:
        config: every field of `configs/base.py`.
        name: what the variant is called when nothing is swept.
        workdir_path: the folder for the results, made if need be.
        overwrite: start over, deleting what the workdir holds.
        command: the command line, for the report.
        began: `time.time()` at the start of the process, for the times shown.

    Returns:
        The summary, as written to `summary.json`.

    Raises:
        ValueError: if a field of the config is not valid, or the data are not.
        WorkdirError: if the workdir holds another config's run, or something else.
        OSError: if the data cannot be had, or the disk not be written.
        StoppedError: after SIGINT or SIGTERM, once the state is saved.
    """
    began = time.time() if began is None else began
    trials = sweep.resolve(config, name)
    use_cores_as_devices(max(len(group) for group in sweep.populations(trials)))
    folder = Path(workdir_path)
    with (
        workdir.claimed(folder, config, overwrite) as begin,
        population.stop_signals() as stopped,
    ):
        dataset, affine = _load(config)
        summaries = {
            trial.variant: models.summarize(
                models.create(trial.config, dataset.num_classes), _image_shape(dataset)
            )
            for trial in trials
        }
        begin()
        return _run(config, trials, dataset, affine, summaries, folder, command, began, stopped)


def _load(config: ConfigDict) -> tuple[datasets.Dataset, datasets.Affine]:
    loaded = datasets.load(
        config.dataset, config.data_dir or None, allow_subset=config.allow_subset
    )
    affine = datasets.normalization(config.normalization, loaded.train_images)
    dataset = datasets.split(loaded, config.train_examples, config.validation_examples)
    log.info(
        "%s from %s: %s training, %s validation, %s test images",
        dataset.name,
        dataset.source,
        f"{len(dataset.train_labels):,}",
        f"{len(dataset.validation_labels):,}",
        f"{len(dataset.test_labels):,}",
    )
    return dataset, affine


def _image_shape(dataset: datasets.Dataset) -> tuple[int, int, int]:
    height, width, channel = datasets.pad(dataset.train_images[:1]).shape[1:]
    return height, width, channel


def _run(
    config: ConfigDict,
    trials: tuple[Trial, ...],
    dataset: datasets.Dataset,
    affine: datasets.Affine,
    summaries: dict[str, models.ModelSummary],
    folder: Path,
    command: str,
    began: float,
    stopped: Callable[[], int],
) -> dict[str, Any]:
    described = _describe(dataset, affine)
    workdir.write_json(folder / "dataset.json", described)
    for variant, model_summary in summaries.items():
        display.CONSOLE.print(display.model_table(variant, model_summary))

    groups = sweep.populations(trials)
    mesh = program.mesh_for(max(len(group) for group in groups))
    images, parts = _place(dataset, mesh)
    results = [
        population.train(
            group,
            _recipe(group[0].config, dataset, affine),
            images,
            parts,
            mesh,
            folder,
            f"population-{number}",
            config.checkpoints_to_keep,
            stopped,
        )
        for number, group in enumerate(groups)
    ]

    summary = _summarize(trials, groups, results, described, summaries)
    first_steps = [result.first_step for result in results if result.first_step is not None]
    summary["command"] = command
    summary["timing"] |= {
        "total_seconds": time.time() - began,
        "first_step_seconds": first_steps[0] - began if first_steps else None,
    }
    _write_predictions(folder, dataset, trials, groups, results)
    workdir.write_json(folder / "summary.json", summary)
    report.write(str(folder))
    for variant in summary["variants"]:
        log.info(sentence(summary, variant))
    log.info("report: %s", folder / "report.html")
    return summary


def _place(dataset: datasets.Dataset, mesh: Mesh) -> tuple[program.Images, population.Parts]:
    images = (dataset.train_images, dataset.validation_images, dataset.test_images)
    labels = (dataset.train_labels, dataset.validation_labels, dataset.test_labels)
    train, validation, test = (len(part) for part in labels)
    placed = program.place(
        np.concatenate([datasets.pad(part) for part in images]), np.concatenate(labels), mesh
    )
    return placed, population.Parts((0, train), (train, validation), (train + validation, test))


def _recipe(
    config: ConfigDict, dataset: datasets.Dataset, affine: datasets.Affine
) -> program.Recipe:
    return program.Recipe(
        model=models.create(config, dataset.num_classes),
        optimizer=config.optimizer,
        schedule=config.schedule,
        loss=config.loss,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        train_examples=len(dataset.train_labels),
        affine=affine,
    )


def _describe(dataset: datasets.Dataset, affine: datasets.Affine) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "source": dataset.source,
        "sha256": dataset.sha256,
        "train_examples": len(dataset.train_labels),
        "validation_examples": len(dataset.validation_labels),
        "test_examples": len(dataset.test_labels),
        "class_names": list(dataset.class_names),
        "native_shape": list(dataset.train_images.shape[1:]),
        "image_shape": list(_image_shape(dataset)),
        "normalization": {"scale": list(affine.scale), "offset": list(affine.offset)},
    }


def _write_predictions(
    folder: Path,
    dataset: datasets.Dataset,
    trials: tuple[Trial, ...],
    groups: tuple[Population, ...],
    results: list[population.Result],
) -> None:
    where = {
        trial.id: (result.test, index)
        for group, result in zip(groups, results, strict=True)
        for index, trial in enumerate(group)
    }
    told = [where[trial.id] for trial in trials]
    write_atomically(
        folder / "predictions.npz",
        lambda file: np.savez_compressed(
            file,
            trials=np.array([trial.id for trial in trials]),
            test_labels=dataset.test_labels.astype(np.int32),
            test_predictions=np.stack([test["prediction"][index] for test, index in told]),
            test_probabilities=np.stack([test["probability"][index] for test, index in told]),
        ),
    )


def _summarize(
    trials: tuple[Trial, ...],
    groups: tuple[Population, ...],
    results: list[population.Result],
    described: dict[str, Any],
    summaries: dict[str, models.ModelSummary],
) -> dict[str, Any]:
    rows = {}
    for group, result in zip(groups, results, strict=True):
        for index, trial in enumerate(group):
            loss = population.mean(result.test["loss"][index])
            diverged = bool(result.diverged[index]) or loss is None
            rows[trial.id] = {
                "id": trial.id,
                "variant": trial.variant,
                "overrides": dict(trial.overrides),
                "seed": trial.seed,
                "status": "diverged" if diverged else "done",
                "epochs": trial.fields["num_epochs"],
                "parameters": summaries[trial.variant].parameters,
                "train_error": population.mean(result.train["error"][index]),
                "validation_error": population.mean(result.validation["error"][index]),
                "test_error": population.mean(result.test["error"][index]),
                "test_loss": loss,
            }
    ordered = [rows[trial.id] for trial in trials]
    trained = sum(result.train_seconds for result in results)
    return {
        "dataset": described,
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
            "seconds_per_trial_epoch": trained / sum(row["epochs"] for row in ordered),
        },
        "trials": ordered,
        "variants": [
            _summarize_variant(variant, [row for row in ordered if row["variant"] == variant])
            for variant in summaries
        ],
        "comparisons": [],
        "models": {variant: dataclasses.asdict(summary) for variant, summary in summaries.items()},
    }


def _summarize_variant(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    errors = [row["test_error"] for row in rows if row["status"] == "done"]
    mean, interval = mean_interval(errors) if errors else (None, None)
    return {
        "name": name,
        "n": len(errors),
        "test_error_mean": mean,
        "test_error_ci95": interval,
        "tuned": {},
        "diverged": len(rows) - len(errors),
    }
