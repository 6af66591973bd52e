"""From the command to the first training step, and how much memory a run takes.

    python -m benchmarks.startup [--repeats=3] [--full]

Each run is a process of its own with an empty workdir. The data are cached; a *cold* run has no
compiled programs, a *warm* one those of the cold run before it. `--full` times all 10 epochs of
`configs/relu_max.py` besides, cold.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.table
from absl import flags

from benchmarks import machine
from benchmarks.results import CONSOLE, Spread, run_command
from lenet import data as datasets
from lenet import workdir

ROOT = Path(__file__).resolve().parent.parent
DATASET = "mnist"
FULL = ("--config=configs/relu_max.py",)
SHORT = (*FULL, "--config.num_epochs=1", "--config.train_examples=1000")


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a process took: seconds from its start to its end, and its peak resident memory."""

    seconds: float
    peak_bytes: int


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One run of `main.py`; the times but `seconds` are those it writes to its summary."""

    import_seconds: float
    data_seconds: float
    first_step_seconds: float
    compile_seconds: float
    train_seconds: float
    seconds: float
    peak_mebibytes: float


def measure(command: Sequence[str], environment: Mapping[str, str]) -> Usage:
    """Runs a command from the repository's root and waits for it.

    Raises:
        ValueError: if it fails, with the last line that it printed.
    """
    # Linux counts the peak of the parent as the child's own, so this process has to stay small.
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env={**environment}, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            last = (output.read().splitlines() or ["it printed nothing"])[-1]
            raise ValueError(f"{' '.join(command)} gave status {process.returncode}: {last}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(seconds, usage.ru_maxrss * unit)


def train(arguments: Sequence[str], cache: Path) -> Measurement:
    """Runs `main.py` in a workdir of its own, with `cache` as the cache folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "main.py", *arguments, f"--workdir={folder}/run"]
        usage = measure(command, {**os.environ, "LENET_CACHE_DIR": str(cache)})
        timing = json.loads(Path(folder, "run", "summary.json").read_text())["timing"]
    return Measurement(
        timing["import_seconds"],
        timing["data_seconds"],
        timing["first_step_seconds"],
        timing["compile_seconds"],
        timing["train_seconds"],
        usage.seconds,
        usage.peak_bytes / 2**20,
    )


def fresh_cache(folder: Path) -> Path:
    """Makes a cache folder that holds the data and no compiled programs.

    Raises:
        OSError: if the data are neither cached nor to be had.
    """
    cached = datasets.cache_folder() / f"{DATASET}.npz"
    if not cached.exists():
        datasets.load(DATASET)
    folder.mkdir()
    shutil.copy(cached, folder)
    return folder


def run(repeats: int, full: bool, json_path: str | None) -> None:
    """Runs, prints, and writes the JSON file if it has a path.

    Raises:
        ValueError: if an argument is out of range, or a run fails.
        OSError: if the data cannot be had, or the JSON file not be written.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    described = machine.describe()
    CONSOLE.print(machine.sentence(described))
    measured: dict[str, list[Measurement]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            cache = fresh_cache(Path(folder, str(number)))
            for state in ("cold", "warm"):
                measured[state].append(train(SHORT, cache))
            CONSOLE.print(f"round {number + 1} of {repeats}")
        if full:
            measured["full, cold"] = [train(FULL, fresh_cache(Path(folder, "full")))]

    rows = {state: _spreads(runs) for state, runs in measured.items()}
    CONSOLE.print(f"cold and warm: main.py {' '.join(SHORT)}")
    CONSOLE.print(table(rows))
    if json_path:
        spreads = {
            state: {name: spread.to_json() for name, spread in row.items()}
            for state, row in rows.items()
        }
        workdir.write_json(
            Path(json_path), {"benchmark": "startup", "machine": described, "runs": spreads}
        )


def _spreads(runs: Sequence[Measurement]) -> dict[str, Spread]:
    names = [field.name for field in dataclasses.fields(Measurement)]
    return {name: Spread(tuple(getattr(run, name) for run in runs)) for name in names}


def table(rows: Mapping[str, Mapping[str, Spread]]) -> rich.table.Table:
    """The rows for a reader, as medians and ranges."""
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    drawn.add_column("")
    headings: dict[str, Any] = {
        "import_seconds": "s importing",
        "data_seconds": "s for data",
        "compile_seconds": "s compiling",
        "first_step_seconds": "s to first step",
        "train_seconds": "s training",
        "seconds": "s in all",
        "peak_mebibytes": "peak MiB",
    }
    for heading in headings.values():
        drawn.add_column(heading, justify="right")
    for state, row in rows.items():
        digits = {name: 0 if name == "peak_mebibytes" else 2 for name in headings}
        drawn.add_row(state, *(row[name].text(digits[name]) for name in headings))
    return drawn


def main(values: Any) -> None:
    """Runs the benchmark of the command line."""
    run(values.repeats, values.full, values.json)


if __name__ == "__main__":
    flags.DEFINE_integer("repeats", 3, "Runs of each kind.")
    flags.DEFINE_bool("full", False, "Also run all epochs of configs/relu_max.py.")
    flags.DEFINE_string("json", None, "A file for the results.")
    run_command(main)
