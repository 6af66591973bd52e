"""Microseconds a step at batch sizes from 1 to 1024: ours, PyTorch and plain Flax, one model each.

    python -m benchmarks.steps [--batch_size=1,8,32,128,512,1024] [--repeats=5]

At each batch size all take one same step first, as in `benchmarks.throughput`, and then turns.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import rich.box
import rich.table
from absl import app, flags, logging

from benchmarks import contestants, machine, throughput
from benchmarks.results import CONSOLE, Spread, numbers
from lenet import experiment, workdir

# In each round: enough steps for a clock, and enough images for the largest batches.
STEPS, IMAGES = 300, 8192


def measure(batch_size: int, repeats: int, threads: int) -> dict[str, Spread]:
    """Seconds a step of every contestant.

    Raises:
        ValueError: if the contestants disagree, or the batch is larger than the data.
    """
    task = contestants.create_task(*contestants.load_images(), batch_size, threads)
    entered = throughput.contestants([1])
    entries = {who.name: who.make(task) for who in entered}
    contestants.check_agreement(
        {name: entry.first_step(task.start) for name, entry in entries.items()},
        task.config.learning_rate,
    )
    count = max(batch_size, min(STEPS * batch_size, IMAGES))
    turns = {
        name: lambda entry=entry: entry.train(count) * batch_size / count
        for name, entry in entries.items()
    }
    return throughput.take_turns(turns, repeats, lambda line: None)


def table(rows: Mapping[int, Mapping[str, Spread]]) -> rich.table.Table:
    """A row a batch size; time ratios below 1 are faster."""
    names = list(next(iter(rows.values())))
    drawn = rich.table.Table(title="microseconds a step", box=rich.box.SIMPLE_HEAD)
    drawn.add_column("batch size", justify="right")
    for name in names:
        drawn.add_column(name, justify="right")
    for name in names[1:]:
        drawn.add_column(f"time / {name}", justify="right")
    for batch_size, row in rows.items():
        ours = row[names[0]]
        drawn.add_row(
            str(batch_size),
            *((row[name] * 1e6).text(0) for name in names),
            *((ours / row[name]).text() for name in names[1:]),
        )
    return drawn


def run(batch_sizes: Sequence[int], repeats: int, threads: int, json_path: str | None) -> None:
    """Measures and prints, and writes the JSON file if it has a path.

    Raises:
        ValueError: if an argument is out of range, or the contestants disagree.
        OSError: if the JSON file cannot be written.
    """
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"batch_size={[*batch_sizes]} must be numbers from 1 up")
    if repeats < 1 or threads < 1:
        raise ValueError(f"repeats={repeats} and threads={threads} must be at least 1")
    described = machine.describe()
    CONSOLE.print(machine.sentence(described))
    if not throughput.has_torch():
        CONSOLE.print(throughput.INSTALL_TORCH)
    rows = {}
    for batch_size in batch_sizes:
        rows[batch_size] = measure(batch_size, repeats, threads)
        CONSOLE.print(f"measured batch size {batch_size}")
    CONSOLE.print(table(rows))
    if json_path:
        workdir.write_json(
            Path(json_path),
            {
                "benchmark": "steps",
                "machine": described,
                "repeats": repeats,
                "threads": threads,
                "rows": [
                    {
                        "batch_size": batch_size,
                        "seconds_per_step": {name: row[name].to_json() for name in row},
                    }
                    for batch_size, row in rows.items()
                ],
            },
        )


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark of the command line."""
    values = flags.FLAGS
    try:
        if len(argv) > 1:
            raise ValueError(f"{argv[1]!r} is not a flag; flags are written --name=value")
        batch_sizes = numbers("batch_size", values.batch_size)
        jax.config.update("jax_platforms", "cpu")
        experiment.cache_compilations()
        experiment.use_cores_as_devices(1)
        run(batch_sizes, values.repeats, values.threads, values.json)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    flags.DEFINE_list("batch_size", ["1", "8", "32", "128", "512", "1024"], "Images a step.")
    flags.DEFINE_integer("repeats", 5, "Rounds that count.")
    flags.DEFINE_integer("threads", machine.cores(), "Threads of PyTorch.")
    flags.DEFINE_string("json", None, "A file for the results.")
    app.call_after_init(lambda: logging.set_verbosity(logging.WARNING))
    app.run(main)
