"""The files of a workdir: claiming it, and writing into it so that nothing is ever half there."""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lenet.files import write_atomically

Line = dict[str, Any]

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
def claimed(folder: Path, config: ConfigDict, overwrite: bool) -> Iterator[None]:
    """Makes the workdir this config's and, while the context lasts, this process's own.

    Args:
        folder: the workdir, made if need be.
        config: written to `config.json`, or compared with what is there.
        overwrite: delete what an earlier run left.

    Raises:
        WorkdirError: if it belongs to another config, another process or no run at all.
    """
    wanted = json.loads(config.to_json_best_effort())
    if folder.exists() and not folder.is_dir():
        raise WorkdirError(f"workdir {folder} is a file; name a folder")
    held = folder / "config.json"
    others = [] if not folder.is_dir() else [p for p in folder.iterdir() if p.name != ".lock"]
    if others and not held.is_file():
        raise WorkdirError(
            f"workdir {folder} holds files but no run (there is no config.json); name another"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkdirError(f"workdir {folder} is in use by another run") from error
        if held.is_file() and overwrite:
            for entry in folder.iterdir():
                if entry.name != ".lock":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if held.is_file():
            _check_same(json.loads(held.read_text()), wanted, folder)
        else:
            write_json(held, wanted)
        yield


def _check_same(held: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    differing = [
        f"{field} ({held.get(field)!r} there, {wanted.get(field)!r} now)"
        for field in sorted({*held, *wanted})
        if held.get(field) != wanted.get(field)
    ]
    if differing:
        raise WorkdirError(
            f"workdir {folder} holds a run of another config; it differs in: "
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
    with open(folder / "metrics.jsonl", "a") as file:
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
    with contextlib.ExitStack() as stack:
        writers: dict[str, Any] = {}

        def write(lines: Iterable[Line]) -> None:
            # Imported here because it takes longer than the first training step has to wait.
            from tensorboardX import SummaryWriter

            for line in lines:
                trial = line["trial"]
                if trial not in writers:
                    writer = SummaryWriter(
                        str(folder / "tensorboard" / trial), purge_step=epochs + 1
                    )
                    writers[trial] = stack.enter_context(writer)
                for key in SCALARS:
                    if line[key] is not None:
                        writers[trial].add_scalar(key, line[key], line["epoch"])

        yield write
