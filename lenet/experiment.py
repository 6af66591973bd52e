"""A config from start to finish: trials, populations, summary, report."""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lenet import data as datasets
from lenet import (
    display,
    memory,
    population,
    processes,
    program,
    report,
    sweep,
    transfer,
    workdir,
)
from lenet import model as models
from lenet import summary as summaries
from lenet.files import write_atomically
from lenet.population import Parts, Result
from lenet.sweep import Plan, Population, Trial
from lenet.templates.run import sentence

log = logging.getLogger(__name__)

# Of what a device has free when a population is compiled; the rest is for what XLA does not count.
MEMORY_SHARE = 0.7


@dataclasses.dataclass(frozen=True)
class Start:
    """What came before the work.

    Attributes:
        began: `time.time()` when the process did.
        entered: the same when all that it needs was imported.
        data_seconds: how long the data set took to load.
    """

    began: float
    entered: float
    data_seconds: float


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
    draw: bool = True,
) -> dict[str, Any]:
    """Runs a config: trains its trials and writes the workdir, down to the report.

    Running again with the same config resumes, from wherever the last run stopped; with one that
    only adds trials, trains those. Of several processes all train, and the primary writes.

    Args:
        config: every field of `configs/base.py`.
        name: what the variant is called when nothing is swept.
        workdir_path: the folder for the results, made if need be.
        overwrite: start over, deleting what the workdir holds.
        command: the command line, for the report.
        began: `time.time()` at the start of the process, for the times shown.
        draw: whether to draw the report.

    Returns:
        The summary, as written to `summary.json`.

    Raises:
        ValueError: if a field of the config is not valid, or the data are not.
        WorkdirError: if the workdir holds another config's run, or something else.
        OSError: if the data cannot be had, or the disk not be written.
        StoppedError: after SIGINT or SIGTERM, once the state is saved.
        ElsewhereError: if another process failed.
    """
    entered = time.time()
    plan = sweep.plan(config, name)
    groups = [*sweep.populations(plan.tuning), *sweep.populations(plan.final({}))]
    use_cores_as_devices(max(len(group) for group in groups))
    if not processes.is_primary():
        display.show_warnings_only()
    folder = Path(workdir_path)

    def extends(held: dict[str, Any]) -> bool:
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            return sweep.extends(sweep.plan(ConfigDict(held), name), plan)
        return False

    with contextlib.ExitStack() as claims:
        begin: list[Callable[[], None]] = []
        claim = workdir.claimed(folder, config, overwrite, extends)
        processes.from_primary(lambda: begin.append(claims.enter_context(claim)))
        loading = time.time()
        dataset = _load(config)
        start = Start(entered if began is None else began, entered, time.time() - loading)
        for group in groups:
            _parts(group[0], dataset)
            processes.from_primary(functools.partial(_check_starts, group, dataset))
        networks = {
            trial.variant: models.summarize(
                models.create(trial.config, dataset.num_classes), _image_shape(dataset)
            )
            for trial in plan.final({})
        }
        processes.from_primary(lambda: begin[0]())
        with population.stop_signals() as stopped:
            return _run(config, plan, dataset, networks, folder, command, start, stopped, draw)


def _check_starts(group: Population, dataset: datasets.Dataset) -> None:
    """Raises ValueError if the trained parameters to begin with are not there, or do not fit."""
    model = models.create(group[0].config, dataset.num_classes)
    params = jax.eval_shape(
        lambda key: models.init_params(model, key, _image_shape(dataset)), jax.random.key(0)
    )
    transfer.begin(group, [params] * len(group))


def _load(config: ConfigDict) -> datasets.Dataset:
    """The data set, in every process; the primary first, as it may leave it in a common cache."""
    loaded: list[datasets.Dataset] = []

    def load() -> None:
        whole = datasets.load(
            config.dataset, config.data_dir or None, allow_subset=config.allow_subset
        )
        loaded.append(datasets.hold_out(whole, config.holdout))

    def check() -> None:
        if loaded[0].sha256 != expected:
            raise ValueError(f"{loaded[0].source} has other images here than in process 0")

    processes.from_primary(load)
    processes.together(lambda: None if loaded else load())
    expected = processes.from_primary(lambda: loaded[0].sha256)
    processes.together(check)
    return loaded[0]


def _run(
    config: ConfigDict,
    plan: Plan,
    dataset: datasets.Dataset,
    networks: Mapping[str, models.ModelSummary],
    folder: Path,
    command: str,
    start: Start,
    stopped: Callable[[], int],
    draw: bool,
) -> dict[str, Any]:
    final = plan.final({})
    affines = {
        name: datasets.normalization(name, dataset.train_images)
        for name in dict.fromkeys(t.fields["normalization"] for t in (*plan.tuning, *final))
    }
    described = _describe(dataset, affines, _parts(final[0], dataset))
    processes.from_primary(lambda: workdir.write_json(folder / "dataset.json", described))
    for table in display.model_tables(networks):
        display.CONSOLE.print(table)
    if len(plan.tuning) + len(plan.cells) > 1:
        display.CONSOLE.print(display.plan_table(plan, functools.partial(_steps, dataset)))

    mesh = program.mesh_for(max(len(plan.cells), len(plan.tuning)))
    images = program.place(
        datasets.pad(np.concatenate([dataset.train_images, dataset.test_images])),
        np.concatenate([dataset.train_labels, dataset.test_labels]),
        mesh,
    )

    def train_all(trials: Sequence[Trial], later: Sequence[Trial] = ()) -> list[Result]:
        return _train_all(trials, later, dataset, affines, images, mesh, folder, config, stopped)

    tuned = train_all(plan.tuning, final)
    errors = processes.from_primary(
        lambda: {
            outcome.trial.id: summaries.validation_error(outcome)
            for outcome in summaries.outcomes(plan.tuning, tuned)
        }
    )
    chosen = sweep.choose(plan.tuning, errors)
    for variant, setting in chosen.items():
        log.info("%s: chosen %s", variant, ", ".join(f"{k}={v}" for k, v in setting.items()))
    results = train_all(plan.final(chosen))
    return processes.from_primary(
        lambda: _conclude(
            plan, chosen, tuned, results, dataset, described, networks, folder, command, start, draw
        )
    )


def _conclude(
    plan: Plan,
    chosen: Mapping[str, sweep.Values],
    tuned: Sequence[Result],
    results: Sequence[Result],
    dataset: datasets.Dataset,
    described: dict[str, Any],
    networks: Mapping[str, models.ModelSummary],
    folder: Path,
    command: str,
    start: Start,
    draw: bool,
) -> dict[str, Any]:
    """Writes what a run found out; gives its summary."""
    tuning = summaries.outcomes(plan.tuning, tuned)
    final = summaries.outcomes(plan.final(chosen), results)
    first_steps = [r.first_step for r in (*tuned, *results) if r.first_step >= start.began]
    summary = summaries.summarize(
        final,
        tuning,
        chosen,
        [*tuned, *results],
        described,
        networks,
        plan.path,
        plan.references,
    )
    summary["command"] = command
    summary["timing"] |= {
        "total_seconds": time.time() - start.began,
        "import_seconds": start.entered - start.began,
        "data_seconds": start.data_seconds,
        "first_step_seconds": min(first_steps) - start.began if first_steps else None,
    }
    write_atomically(
        folder / "predictions.npz",
        lambda file: np.savez_compressed(
            file,
            trials=np.array([outcome.trial.id for outcome in final]),
            test_labels=dataset.test_labels.astype(np.int32),
            test_predictions=np.stack([outcome.prediction for outcome in final]),
            test_probabilities=np.stack([outcome.probability for outcome in final]),
        ),
    )
    workdir.write_json(folder / "summary.json", summary)
    if draw:
        report.write(str(folder))
    for variant in summary["variants"]:
        log.info(sentence(summary, variant))
    if draw:
        log.info("report: %s", folder / "report.html")
    return summary


def _train_all(
    trials: Sequence[Trial],
    later: Sequence[Trial],
    dataset: datasets.Dataset,
    affines: Mapping[str, datasets.Affine],
    images: program.Images,
    mesh: jax.sharding.Mesh,
    folder: Path,
    config: ConfigDict,
    stopped: Callable[[], int],
) -> list[Result]:
    """Trains trials population by population; what is finished is read, not trained again.

    Returns:
        A result a population; in other processes than the primary, of those trained now alone.
    """
    if not trials:
        return []
    checkpoints = folder / "checkpoints"
    stage = "tuning" if trials[0].stage == "tune" else "population"
    known = processes.from_primary(
        lambda: {
            path.stem: json.loads(path.read_text())
            for path in sorted(checkpoints.glob(f"{stage}-*.json"))
        }
    )
    waiting = list(sweep.populations(trials, list(known.values())))
    results: list[Result] = []

    def work(populations: Iterable[Population]) -> int:
        """Presentations of an image."""
        return sum(
            len(group) * group[0].fields["num_epochs"] * _parts(group[0], dataset).train[1]
            for group in populations
        )

    def read(name: str, ids: list[str]) -> bool:
        held = population.load_result(checkpoints / f"{name}.npz", ids)
        results.extend([held] if held else [])
        return held is not None

    done = 0
    while waiting:
        group = waiting.pop(0)
        ids = [trial.id for trial in group]
        name = next((name for name, held in known.items() if held == ids), None)
        if name and processes.from_primary(functools.partial(read, name, ids)):
            done += 1
            continue
        parts = _parts(group[0], dataset)
        affine = affines[group[0].fields["normalization"]]
        compiled = _compile(group, dataset, affine, images, mesh)
        smaller = _split(group, compiled) if name is None else ()
        if smaller:
            waiting = [*smaller, *waiting]
            continue
        if name is None:
            name = f"{stage}-{len(known):03d}"
            known[name] = ids
            processes.from_primary(
                functools.partial(workdir.write_json, checkpoints / f"{name}.json", ids)
            )
        result = population.train(
            group,
            compiled,
            images,
            parts,
            folder,
            name,
            config.checkpoints_to_keep,
            stopped,
            ahead=work([*waiting, *sweep.populations(later)]) / work([group]),
        )
        processes.from_primary(
            functools.partial(population.save_result, checkpoints / f"{name}.npz", result)
        )
        results.append(result)
        done += 1
        if waiting:
            log.info("%d of %d populations done", done, done + len(waiting))
    return results


def _compile(
    group: Population,
    dataset: datasets.Dataset,
    affine: datasets.Affine,
    images: program.Images,
    mesh: jax.sharding.Mesh,
) -> program.Program:
    examples = _parts(group[0], dataset).train[1]
    recipe = population.recipe_of(group[0].config, dataset.num_classes, examples, affine)
    title = population.title_of(group)
    log.info("compiling %s", title)
    compiled = program.compile_program(recipe, len(population.padded(group, mesh)), images, mesh)
    log.info("compiled in %.1f s", compiled.compile_seconds)
    return compiled


def _split(group: Population, compiled: program.Program) -> tuple[Population, ...]:
    """Smaller populations where the devices have too little memory for this one; else none."""
    # The least that any process has, so that all split alike.
    everywhere = processes.from_each(float(memory.free_bytes(compiled.mesh)))
    free = MEMORY_SHARE * float(everywhere.min())
    if compiled.bytes_per_device <= free or len(group) <= compiled.mesh.size:
        return ()
    size = max(compiled.mesh.size, int(len(group) * free / compiled.bytes_per_device))
    log.info(
        "%d models at once need %.1f GiB a device, of %.1f GiB free; training %d at a time",
        len(group),
        compiled.bytes_per_device / 2**30,
        free / MEMORY_SHARE / 2**30,
        size,
    )
    return tuple(group[start : start + size] for start in range(0, len(group), size))


def _parts(trial: Trial, dataset: datasets.Dataset) -> Parts:
    """Which images a trial is trained, validated and tested on; one that tunes is never tested."""
    split = datasets.split(
        dataset, trial.fields["train_examples"], trial.fields["validation_examples"]
    )
    training, validation = len(dataset.train_labels), len(split.validation_labels)
    test = 0 if trial.stage == "tune" else len(dataset.test_labels)
    return Parts(
        (0, len(split.train_labels)), (training - validation, validation), (training, test)
    )


def _steps(dataset: datasets.Dataset, trial: Trial) -> int:
    """Updates that training a trial takes."""
    examples = _parts(trial, dataset).train[1]
    return trial.fields["num_epochs"] * -(-examples // trial.fields["batch_size"])


def _image_shape(dataset: datasets.Dataset) -> tuple[int, int, int]:
    height, width, channel = datasets.pad(dataset.train_images[:1]).shape[1:]
    return height, width, channel


def _describe(
    dataset: datasets.Dataset, affines: Mapping[str, datasets.Affine], parts: Parts
) -> dict[str, Any]:
    """What `dataset.json` says; `normalization` is that of the first trials."""
    normalizations = {
        name: {"scale": list(affine.scale), "offset": list(affine.offset)}
        for name, affine in affines.items()
    }
    counts = {part: getattr(parts, part)[1] for part in population.PARTS}
    log.info(
        "%s from %s: %s training, %s validation, %s test images",
        dataset.name,
        dataset.source,
        *(f"{count:,}" for count in counts.values()),
    )
    return {
        "name": dataset.name,
        "source": dataset.source,
        "sha256": dataset.sha256,
        **{f"{part}_examples": count for part, count in counts.items()},
        "class_names": list(dataset.class_names),
        "native_shape": list(dataset.train_images.shape[1:]),
        "image_shape": list(_image_shape(dataset)),
        "normalization": next(iter(normalizations.values())),
        "normalizations": normalizations,
    }
