"""Peak memory of training on the CPU, by models and by batch size: ours next to PyTorch.

    python -m benchmarks.memory [--population=1,2,4,8,16,32] [--batch_size=32,128,512]

Each row is a process of its own that holds so many models and their optimizers, and takes a few
steps with each: ours as one population, PyTorch's one after another. What a model more costs is the
slope of a straight line through the peaks, of populations with a model or more for every core: ours
holds the images once a core that it uses.
"""

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.box
import rich.table
from absl import flags

from benchmarks import machine
from benchmarks.results import CONSOLE, numbers, run_command
from benchmarks.startup import measure
from lenet import workdir

STEPS = 3
BATCH_SIZE = 128
Peaks = Mapping[tuple[str, int, int], float]


def train(kind: str, members: int, batch_size: int) -> None:
    """Takes a few steps with each of `members` models; what the measured process does."""
    import jax

    from benchmarks import contestants
    from lenet import experiment

    jax.config.update("jax_platforms", "cpu")
    experiment.use_cores_as_devices(members)
    task = contestants.create_task(*contestants.load_images(), batch_size, machine.cores())
    if kind == "ours":
        contestants.ours(members).make(task).train(STEPS * batch_size)
        return
    from benchmarks import pytorch

    for entry in [pytorch.eager().make(task) for _ in range(members)]:
        entry.train(STEPS * batch_size)


def slope(members: Sequence[int], mebibytes: Sequence[float]) -> float:
    """MiB that one model more takes, by least squares."""
    return float(np.polyfit(members, mebibytes, 1)[0])


def run(populations: Sequence[int], batch_sizes: Sequence[int], json_path: str | None) -> None:
    """Measures and prints, and writes the JSON file if it has a path.

    Raises:
        ValueError: if an argument is out of range, or a process fails.
        OSError: if the JSON file cannot be written.
    """
    from benchmarks.throughput import INSTALL_TORCH, has_torch

    cores = machine.cores()
    if min(populations, default=0) < 1 or sum(n >= cores for n in {*populations}) < 2:
        raise ValueError(
            f"population={[*populations]} must be numbers from 1 up, two or more of them at least "
            f"{cores}, the number of cores"
        )
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"batch_size={[*batch_sizes]} must be numbers from 1 up")
    described = machine.describe()
    CONSOLE.print(machine.sentence(described))
    kinds = ("ours", "PyTorch") if has_torch() else ("ours",)
    if not has_torch():
        CONSOLE.print(INSTALL_TORCH)
    wanted = dict.fromkeys(
        [(members, BATCH_SIZE) for members in populations] + [(1, size) for size in batch_sizes]
    )
    peaks: dict[tuple[str, int, int], float] = {}
    for kind, (members, size) in itertools.product(kinds, wanted):
        arguments = ("--child", kind, "--members", str(members), "--size", str(size))
        usage = measure([sys.executable, "-m", "benchmarks.memory", *arguments], os.environ)
        peaks[kind, members, size] = usage.peak_bytes / 2**20
        CONSOLE.print(f"{kind}, {members} x batch {size}: {usage.peak_bytes / 2**20:.0f} MiB")
    CONSOLE.print(table(peaks, [*wanted], kinds))
    fitted = [members for members in populations if members >= cores]
    slopes = {
        kind: slope(fitted, [peaks[kind, members, BATCH_SIZE] for members in fitted])
        for kind in kinds
    }
    for kind, mebibytes in slopes.items():
        CONSOLE.print(f"{kind}: {mebibytes:.2f} MiB for one model more")
    if json_path:
        workdir.write_json(
            Path(json_path),
            {
                "benchmark": "memory",
                "machine": described,
                "rows": [
                    {"name": kind, "members": members, "batch_size": size, "peak_mebibytes": peak}
                    for (kind, members, size), peak in peaks.items()
                ],
                "mebibytes_per_model_more": slopes,
            },
        )


def table(
    peaks: Peaks, wanted: Sequence[tuple[int, int]], kinds: Sequence[str]
) -> rich.table.Table:
    """A row for each number of models and batch size."""
    drawn = rich.table.Table(title="peak MiB", box=rich.box.SIMPLE_HEAD, title_justify="left")
    for heading in ("models", "batch size", *kinds):
        drawn.add_column(heading, justify="right")
    if len(kinds) > 1:
        drawn.add_column("ratio", justify="right")
    for members, size in wanted:
        row = [peaks[kind, members, size] for kind in kinds]
        cells = [f"{peak:.0f}" for peak in row]
        cells += [f"{row[0] / row[1]:.2f}"] if len(row) > 1 else []
        drawn.add_row(str(members), str(size), *cells)
    return drawn


def main(values: Any) -> None:
    """Runs the benchmark of the command line."""
    if values.child:
        train(values.child, values.members, values.size)
        return
    run(
        numbers("population", values.population),
        numbers("batch_size", values.batch_size),
        values.json,
    )


if __name__ == "__main__":
    flags.DEFINE_list("population", ["1", "2", "4", "8", "16", "32"], "Models at once; several.")
    flags.DEFINE_list("batch_size", ["32", "128", "512"], "Images a step and model; several.")
    flags.DEFINE_string("json", None, "A file for the results.")
    flags.DEFINE_enum("child", None, ["ours", "PyTorch"], "What a measured process trains.")
    flags.DEFINE_integer("members", 1, "Of a measured process.")
    flags.DEFINE_integer("size", BATCH_SIZE, "Of a measured process.")
    run_command(main)
