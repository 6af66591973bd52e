"""The files of a workdir: claiming it, and writing into it so that nothing is ever half there."""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lenet.files import named_errors, write_atomically

Line = dict[str, Any]

LOCK = ".lock"

SCALARS = (
    "learning_rate",
    "train_loss",
    "train_error",
    "validation_loss",
    "validation_error",
    "test_loss",
    "test_error",
)


class WorkdirError(ValueError):
    """A workdir cannot be used for this run."""


@contextlib.contextmanager
def claimed(
    folder: Path,
    config: ConfigDict,
    overwrite: bool,
    extends: Callable[[dict[str, Any]], bool] = lambda held: False,
) -> Iterator[Callable[[], None]]:
    """Makes the workdir this config's and, while the context lasts, this process's own.

    Args:
        folder: the workdir, made if need be.
        config: compared with what is in `config.json`, if it is there.
        overwrite: whether another run's results may be deleted.
        extends: whether this config only adds to one that differs from it, given that one.

    Yields:
        A function to be called when the work begins: it deletes what is to be overwritten and
        writes `config.json`. Without that call nothing has changed when the context ends.

    Raises:
        WorkdirError: if it belongs to another config, another process or no run at all.
    """
    wanted = json.loads(config.to_json_best_effort())
    held = folder / "config.json"
    if folder.exists() and not folder.is_dir():
        raise WorkdirError(f"workdir {folder} is a file; name a folder")
    existed = folder.is_dir()
    if existed and not held.is_file() and any(path.name != LOCK for path in folder.iterdir()):
        raise WorkdirError(
            f"workdir {folder} holds files but no run (there is no config.json); name another"
        )
    folder.mkdir(parents=True, exist_ok=True)

    def begin() -> None:
        if overwrite:
            for entry in folder.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry.name != LOCK:
                    entry.unlink()
        write_json(held, wanted)

    with open(folder / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkdirError(f"workdir {folder} is in use by another run") from error
        if held.is_file() and not overwrite:
            _check_same(held, wanted, extends)
        try:
            yield begin
        finally:
            if not existed and not held.is_file():
                (folder / LOCK).unlink()
                folder.rmdir()


def _check_same(
    path: Path, wanted: dict[str, Any], extends: Callable[[dict[str, Any]], bool]
) -> None:
    try:
        held = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise WorkdirError(f"{path} is not valid JSON: {error}") from error
    differing = [
        f"{field} ({held.get(field)!r} there, {wanted.get(field)!r} now)"
        for field in sorted({*held, *wanted})
        if held.get(field) != wanted.get(field)
    ]
    if differing and not extends(held):
        raise WorkdirError(
            f"workdir {path.parent} holds a run of another config; it differs in: "
            f"{', '.join(differing)}; name another workdir, or start over with --overwrite"
        )


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, whole or not at all."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def keep_metrics(folder: Path, trials: Iterable[str], epochs: int) -> None:
    """Drops the lines of these trials after `epochs`, which will be trained again."""
    path = folder / "metrics.jsonl"
    ids = set(trials)
    kept = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # A line that a kill cut short.
            continue
        if line["trial"] not in ids or line["epoch"] <= epochs:
            kept.append(text + "\n")
    write_atomically(path, lambda file: file.write("".join(kept).encode()))


def append_metrics(folder: Path, lines: Iterable[Line]) -> None:
    """Adds lines to `metrics.jsonl`."""
    path = folder / "metrics.jsonl"
    with named_errors(path), open(path, "a") as file:
        file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)


@contextlib.contextmanager
def tensorboard(folder: Path, epochs: int) -> Iterator[Callable[[Iterable[Line]], None]]:
    """TensorBoard event files, a folder a trial under `tensorboard/`.

    Args:
        folder: the workdir.
        epochs: what older files say of later epochs is purged, as it will be written again.

    Yields:
        A function that writes lines of metrics.
    """
    writers: dict[str, Any] = {}

    def write(lines: Iterable[Line]) -> None:
        # Imported here because it takes longer than the first training step has to wait.
        from tensorboardX import SummaryWriter

        for line in lines:
            trial = line["trial"]
            events = folder / "tensorboard" / trial
            with named_errors(events):
                if trial not in writers:
                    writers[trial] = SummaryWriter(str(events), purge_step=epochs + 1)
                for key in SCALARS:
                    if line[key] is not None:
                        writers[trial].add_scalar(key, line[key], line["epoch"])

    try:
        yield write
    except BaseException:
        for writer in writers.values():
            with contextlib.suppress(OSError):  # It would hide the error that ended the run.
                writer.close()
        raise
    for trial, writer in writers.items():
        with named_errors(folder / "tensorboard" / trial):
            writer.close()
