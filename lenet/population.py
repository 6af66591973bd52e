"""Training one population from wherever it stands to its end, with checkpoints and progress."""

import contextlib
import dataclasses
import functools
import logging
import signal
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from lenet import checkpoints, display, fields, gains, processes, transfer, workdir
from lenet import data as datasets
from lenet import model as models
from lenet import program as programs
from lenet.files import write_atomically
from lenet.program import Images, Member, Program, Recipe
from lenet.sweep import Population
from lenet.templates.run import duration

log = logging.getLogger(__name__)

T = TypeVar("T")


class StoppedError(Exception):
    """A signal asked the run to stop; what it had done is saved."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}; the same command resumes")
        self.signum = signum


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Notes the first SIGINT or SIGTERM instead of dying of it; a second one kills as usual.

    Yields:
        A function that gives the signal received, or 0.
    """
    received: list[int] = []

    def note(signum: int, frame: object) -> None:
        received.append(signum)
        signal.signal(signum, previous[signal.Signals(signum)])
        log.info("%s: saving, then stopping", signal.Signals(signum).name)

    previous = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def recipe_of(config: ConfigDict, classes: int, examples: int, affine: datasets.Affine) -> Recipe:
    """What is compiled to train the trials of a config on so many examples."""
    return Recipe(
        model=models.create(config, classes),
        optimizer=config.optimizer,
        schedule=config.schedule,
        loss=config.loss,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        train_examples=examples,
        affine=affine,
        members_at_once=config.members_at_once,
        augmentation=config.augmentation,
        fresh_order=fields.ORDERS[config.order],
        curvature_examples=config.curvature_examples,
        curvature_interval=config.curvature_interval,
        frozen=tuple(config.frozen),
    )


PARTS = ("train", "validation", "test")
TIMES = ("compile_seconds", "train_seconds", "first_step")


@dataclasses.dataclass(frozen=True)
class Parts:
    """Which of a program's images are what, as (start, count)."""

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Result:
    """What training one population gave, at its last epoch.

    Attributes:
        ids: the ids of its trials.
        diverged: whether each trial did, "trial".
        loss: mean loss in nats, "trial part" in the order of PARTS; NaN where there is none.
        error: share of misclassified images, likewise.
        prediction: the class given to each test image, "trial test".
        probability: the probability given to that class, "trial test".
        compile_seconds: time to trace and compile.
        train_seconds: time in training steps, over all the runs that it took.
        first_step: `time.time()` after the first training step of this process; NaN without one.
    """

    ids: np.ndarray
    diverged: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    prediction: np.ndarray
    probability: np.ndarray
    compile_seconds: float
    train_seconds: float
    first_step: float


def save_result(path: Path, result: Result) -> None:
    """Writes a result, whole or not at all."""
    write_atomically(path, lambda file: np.savez(file, **dataclasses.asdict(result)))


def load_result(path: Path, ids: Sequence[str]) -> Result | None:
    """A result that was saved, if it is there, can be read and is of these trials."""
    try:
        with np.load(path, allow_pickle=False) as file:
            fields: dict[str, Any] = {name: file[name] for name in file.files}
        result = Result(**fields | {name: float(fields[name]) for name in TIMES})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged (%s); evaluating again", path, error)
        return None
    return result if result.ids.tolist() == list(ids) else None


def train(
    trials: Population,
    program: Program,
    images: Images,
    parts: Parts,
    folder: Path,
    name: str,
    keep: int,
    stopped: Callable[[], int],
    ahead: float = 0.0,
) -> Result:
    """Trains the trials to their last epoch, from the latest checkpoint if there is one.

    Args:
        trials: the members.
        program: compiled for `padded` members.
        images: every image, on the devices.
        parts: which of them are for training, validation and test.
        folder: the workdir.
        name: the population's folder under `checkpoints/`.
        keep: how many checkpoints to keep.
        stopped: gives the signal that asks to stop, or 0.
        ahead: the work of the run after this population, as a multiple of this population's.

    Raises:
        StoppedError: after saving, if `stopped` gives a signal.
        CheckpointError: if a checkpoint cannot be written.
    """
    recipe, mesh, count = program.recipe, program.mesh, len(trials)
    title = title_of(trials)
    filled = padded(trials, mesh)
    numbers = programs.numbers_of([trial.fields for trial in filled])
    members = program.create(*programs.place_members(numbers, mesh))
    first_step = np.nan
    measure = gains.measurer(program)

    with _primary(lambda: checkpoints.manager(folder / "checkpoints" / name, keep)) as opened:
        done, seconds = 0, 0.0
        found: list[list[dict[str, Any]]] = []
        restored = checkpoints.restore(opened, members)
        if restored is not None:
            saved, record = restored
            members = programs.place_members(_resized(saved, len(filled)), mesh)
            done, seconds = record["step"], record["train_seconds"]
            found = record.get("step_gains", [])
            log.info("resuming %s after step %d of %d", title, done, recipe.total_steps)
        elif any(trial.fields["init_from"] for trial in trials):
            members = _begun(filled, members, mesh)
        finished = done // recipe.steps_per_epoch
        ids = [trial.id for trial in trials]
        processes.from_primary(lambda: workdir.keep_metrics(folder, ids, finished))
        with (
            _primary(lambda: workdir.tensorboard(folder, finished)) as write_events,
            display.progress(title, recipe.total_steps, done) as show,
        ):
            while done < recipe.total_steps:
                epoch, within = divmod(done, recipe.steps_per_epoch)
                marks = gains.measured(recipe, epoch)
                calls = programs.run_epoch(
                    program, members, images, epoch, within, stopped, marks=marks
                )
                signum = 0
                for advanced, step, took, asked in calls:
                    members, within, signum = advanced, step, asked
                    first_step = time.time() if took and np.isnan(first_step) else first_step
                    done, seconds = epoch * recipe.steps_per_epoch + within, seconds + took
                    show(done)
                    if within in marks:
                        spreads = measure(members, images)[:count]
                        found.append([{"step": done, **spread} for spread in spreads])
                if within == recipe.steps_per_epoch:
                    lines = _epoch_lines(trials, program, members, images, parts, done, seconds)
                    for index, line in enumerate(lines if found else ()):
                        line["step_gains"] = [at_mark[index] for at_mark in found]
                    found = []
                    processes.from_primary(
                        functools.partial(_write_lines, folder, lines, write_events)
                    )
                    _log_epoch(lines, title, recipe.num_epochs, ahead)
                record = _record(trials, recipe, done, seconds) | {"step_gains": found}
                saved = _resized(members, count)
                processes.from_primary(
                    functools.partial(checkpoints.save, opened, done, saved, record)
                )
                if signum and done < recipe.total_steps:
                    raise StoppedError(signum)

    told = {
        part: programs.evaluate(program, members, images, *getattr(parts, part)) for part in PARTS
    }

    def means(what: str) -> np.ndarray:
        columns = [
            [mean(values) for values in told[part][what][:count].astype(np.float64)]
            for part in PARTS
        ]
        return np.array(columns, np.float64).T

    return Result(
        np.array([trial.id for trial in trials]),
        processes.gather(members.diverged)[:count],
        means("loss"),
        means("error"),
        told["test"]["prediction"][:count].astype(np.int32),
        told["test"]["probability"][:count].astype(np.float32),
        program.compile_seconds,
        seconds,
        first_step,
    )


def _begun(trials: Population, members: Member, mesh: Mesh) -> Member:
    """The members with the trained parameters that their trials begin with."""
    fresh = processes.gather(members.state.params)

    def load() -> None:
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], fresh) for i in range(len(trials))]
        begun.append(jax.tree.map(lambda *leaves: np.stack(leaves), *transfer.begin(trials, each)))

    begun: list[Any] = []
    processes.from_primary(load)
    params = processes.share(begun[0] if begun else fresh)
    state = members.state.replace(params=programs.place_members(params, mesh))
    return members.replace(state=state)


def _write_lines(
    folder: Path,
    lines: list[workdir.Line],
    write_events: Callable[[Iterable[workdir.Line]], None],
) -> None:
    workdir.append_metrics(folder, lines)
    write_events(lines)


def _primary(
    open_it: Callable[[], contextlib.AbstractContextManager[T]],
) -> contextlib.AbstractContextManager[Any]:
    """What the primary process opens; None in the others."""
    return open_it() if processes.is_primary() else contextlib.nullcontext()


def title_of(trials: Population) -> str:
    """What to call a population on the screen."""
    stage = "tuning " if trials[0].stage == "tune" else ""
    variants = list(dict.fromkeys(trial.variant for trial in trials))
    name = variants[0] if len(variants) == 1 else f"{len(variants)} variants"
    return f"{stage}{name}" + (f" x {len(trials)}" if len(trials) > 1 else "")


def padded(trials: Population, mesh: Mesh) -> Population:
    """The trials, and copies of the last until the devices of the mesh divide their number."""
    return (*trials, *[trials[-1]] * (-len(trials) % mesh.size))


def _resized(members: Member, count: int) -> Member:
    """The first members, and copies of the last where there are not as many."""
    return jax.tree.map(
        lambda leaf: leaf[np.minimum(np.arange(count), len(leaf) - 1)], processes.gather(members)
    )


def _record(trials: Population, recipe: Recipe, step: int, seconds: float) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": step // recipe.steps_per_epoch,
        "train_seconds": seconds,
        "trials": [{"id": trial.id, "fields": dict(trial.fields)} for trial in trials],
    }


def _epoch_lines(
    trials: Population,
    program: Program,
    members: Member,
    images: Images,
    parts: Parts,
    step: int,
    seconds: float,
) -> list[workdir.Line]:
    test = programs.evaluate(program, members, images, *parts.test)
    validation = programs.evaluate(program, members, images, *parts.validation)
    rates = programs.learning_rates(members)
    spread = programs.step_sizes(members)
    told = ("loss", "errors", "examples", "diverged")
    sums = {key: processes.gather(getattr(members, key)) for key in told}
    return [
        {
            "trial": trial.id,
            "variant": trial.variant,
            "stage": trial.stage,
            "seed": trial.seed,
            "epoch": step // program.recipe.steps_per_epoch,
            "step": step,
            "learning_rate": float(rates[index]),
            "train_loss": mean(sums["loss"][index : index + 1] / sums["examples"][index]),
            "train_error": mean(sums["errors"][index : index + 1] / sums["examples"][index]),
            "validation_loss": mean(validation["loss"][index]),
            "validation_error": mean(validation["error"][index]),
            "test_loss": mean(test["loss"][index]),
            "test_error": mean(test["error"][index]),
            "diverged": bool(sums["diverged"][index]),
            "train_seconds": seconds,
            **({"step_sizes": spread[index]} if spread else {}),
        }
        for index, trial in enumerate(trials)
    ]


def mean(values: np.ndarray) -> float | None:
    """The mean; None where it is not finite or there are no values."""
    return finite(np.mean(values, dtype=np.float64)) if len(values) else None


def finite(value: Any) -> float | None:
    """A number as JSON can hold it: None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def _log_epoch(lines: list[workdir.Line], title: str, num_epochs: int, ahead: float) -> None:
    alive = [line for line in lines if not line["diverged"]]
    epoch, seconds = lines[0]["epoch"], lines[0]["train_seconds"]
    parts = [f"{title} epoch {epoch}/{num_epochs}"]
    for part in ("train", "validation", "test"):
        errors = [line[f"{part}_error"] for line in alive if line[f"{part}_error"] is not None]
        if errors:
            parts.append(f"{part} error {100 * float(np.mean(errors)):.2f} %")
    if len(alive) < len(lines):
        parts.append(f"{len(lines) - len(alive)} of {len(lines)} diverged")
    parts.append(f"{seconds / epoch:.1f} s an epoch")
    parts.append(f"{duration(seconds / epoch * (num_epochs - epoch))} left")
    if ahead:
        in_all = seconds / epoch * (num_epochs * (1 + ahead) - epoch)
        parts.append(f"about {duration(in_all)} in all")
    log.info(", ".join(parts))
