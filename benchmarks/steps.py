"""Microseconds a step at batch sizes from 1 to 1024: ours, PyTorch and plain Flax.

    python -m benchmarks.steps [--batch_size=1,8,32,128,512,1024] [--repeats=5]
    python -m benchmarks.steps --network=lenet5_1998 --batch_size=1 --population=1,2,8

The first is the ReLU + max LeNet with Adam, one model each. The second is one pattern at a time
through the LeNet-5 of 1998, ours with the paper's optimizer, its curvature estimate included, next
to PyTorch with plain SGD.

At each batch size all take one same step first, as in `benchmarks.throughput`, and then turns.
PyTorch takes part with one thread and with `--threads`.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import rich.box
import rich.table
from absl import flags

from benchmarks import contestants, machine, throughput
from benchmarks.contestants import Contestant, Entry
from benchmarks.results import CONSOLE, Spread, numbers, run_command
from lenet import experiment, workdir

# In each round: enough steps for a clock, unless the batches are large.
STEPS, IMAGES = 3000, 16_384


@dataclasses.dataclass(frozen=True)
class Row:
    """One contestant's result at one batch size.

    Attributes:
        members: models trained at once.
        seconds: a step and model.
        cores: that it kept busy, by the processor time of the process.
        share: of the rate of a large matrix product.
    """

    name: str
    members: int
    seconds: Spread
    cores: Spread
    share: float

    @property
    def core_seconds(self) -> Spread:
        """Of one core, a step and model."""
        return self.seconds * self.cores

    @property
    def ours(self) -> bool:
        """Whether it is our way of training."""
        return self.name.startswith("ours")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """All contestants at one batch size.

    Attributes:
        source: where the images came from.
        rates: of products of large matrices, in FLOP/s.
    """

    batch_size: int
    source: str
    rows: Sequence[Row]
    rates: dict[str, Spread]


def enter(network: str, populations: Sequence[int], threads: int) -> tuple[Contestant, ...]:
    """Ours, and the others that are installed; of 1998, with plain SGD and with `sdlm`."""
    if network == "lenet5_1998":
        mine = [contestants.ours(1), *(contestants.ours(n, "sdlm") for n in populations)]
    else:
        mine = [contestants.ours(members) for members in populations]
    others = [] if network == "lenet5_1998" else [contestants.plain_flax()]
    if throughput.has_torch():
        from benchmarks import pytorch

        others = [*(pytorch.eager(number) for number in sorted({1, threads})), *others]
    return (*mine, *others)


def measure(
    network: str,
    populations: Sequence[int],
    batch_size: int,
    repeats: int,
    threads: int,
    steps: int,
) -> Measurement:
    """Seconds a step and model of every contestant.

    Raises:
        ValueError: if the contestants disagree, or the batch is larger than the data.
    """
    images = contestants.load_images()
    task = contestants.create_task(*images, batch_size, threads, network)
    entered = enter(network, populations, threads)
    entries = {who.name: who.make(task) for who in entered}
    contestants.check_agreement(
        {name: entry.first_step(task.start) for name, entry in entries.items()}, task
    )
    count = max(batch_size, min(steps * batch_size, IMAGES, len(task.labels)))
    rates = throughput.products(threads)
    cores: dict[str, list[float]] = {name: [] for name in entries}
    turns = {name: _turn(entry, count, cores[name]) for name, entry in entries.items()}
    measured = throughput.take_turns({**rates, **turns}, repeats, lambda line: None)
    product_rates = {name: measured[name] for name in rates}
    compared = throughput.compare(
        {who.name: measured[who.name] * (batch_size / count / who.members) for who in entered},
        product_rates,
        contestants.training_flop(task.recipe.model, task.pixels.shape[1:]) * batch_size,
    )
    rows = [
        # The first turn was the warm-up.
        Row(who.name, who.members, row.seconds, Spread(tuple(cores[who.name][1:])), row.share)
        for who, row in zip(entered, compared, strict=True)
    ]
    return Measurement(batch_size, task.source, rows, product_rates)


def _turn(entry: Entry, count: int, cores: list[float]) -> Callable[[], float]:
    def take() -> float:
        began, busy = time.perf_counter(), time.process_time()
        seconds = entry.train(count)
        cores.append((time.process_time() - busy) / (time.perf_counter() - began))
        return seconds

    return take


def table(measurement: Measurement) -> rich.table.Table:
    """A row a contestant; ratios, to the fastest of the others, below 1 are faster."""
    rows = measurement.rows
    others = [row for row in rows if not row.ours]
    title = f"batch {measurement.batch_size}, a step and model"
    drawn = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left")
    base = min(others, key=lambda row: row.seconds.median, default=None)
    core_base = min(others, key=lambda row: row.core_seconds.median, default=None)
    drawn.add_column("")
    columns = ["us", "cores\nbusy", "us of\none core"]
    columns += [f"time /\n{base.name}"] if base else []
    columns += [f"core time /\n{core_base.name}"] if core_base else []
    for column in (*columns, "of matrix\nproduct"):
        # Headings of several lines leave room for ranges.
        drawn.add_column(column.replace(", ", ",\n"), justify="right")
    for row in rows:
        ratios = [row.seconds / base.seconds] if base else []
        ratios += [row.core_seconds / core_base.core_seconds] if core_base else []
        drawn.add_row(
            row.name,
            (row.seconds * 1e6).text(0),
            f"{row.cores.median:.1f}",
            f"{1e6 * row.core_seconds.median:.0f}",
            *(ratio.text() for ratio in ratios),
            f"{100 * row.share:.0f} %",
        )
    return drawn


def run(
    batch_sizes: Sequence[int],
    repeats: int,
    threads: int,
    json_path: str | None,
    network: str = "relu_max",
    populations: Sequence[int] = (1,),
    steps: int = STEPS,
) -> None:
    """Measures and prints, and writes the JSON file if it has a path.

    Raises:
        ValueError: if an argument is out of range, or the contestants disagree.
        OSError: if the JSON file cannot be written.
    """
    for flag, values in (("batch_size", batch_sizes), ("population", populations)):
        if not values or min(values) < 1 or len({*values}) < len(values):
            raise ValueError(f"{flag}={[*values]} must be different numbers from 1 up")
    if min(repeats, threads, steps) < 1:
        raise ValueError(
            f"repeats={repeats}, threads={threads} and steps={steps} must be at least 1"
        )
    described = machine.describe()
    CONSOLE.print(machine.sentence(described))
    if not throughput.has_torch():
        CONSOLE.print(throughput.INSTALL_TORCH)
    found = []
    for batch_size in batch_sizes:
        found.append(measure(network, populations, batch_size, repeats, threads, steps))
        CONSOLE.print(throughput.rates_sentence(found[-1].rates))
        CONSOLE.print(table(found[-1]))
    CONSOLE.print(f"images: {found[0].source}")
    if json_path:
        workdir.write_json(
            Path(json_path),
            {
                "benchmark": "steps",
                "network": network,
                "machine": described,
                "images": found[0].source,
                "repeats": repeats,
                "steps": steps,
                "threads": threads,
                "batches": [_to_json(measurement) for measurement in found],
            },
        )


def _to_json(measurement: Measurement) -> dict[str, Any]:
    return {
        "batch_size": measurement.batch_size,
        "matrix_product_flop_per_second": throughput.rates_to_json(measurement.rates),
        "rows": [
            {
                "name": row.name,
                "members": row.members,
                "seconds_per_model_step": row.seconds.to_json(),
                "cores_busy": row.cores.to_json(),
                "core_seconds_per_model_step": row.core_seconds.to_json(),
                "share_of_matrix_product": row.share,
            }
            for row in measurement.rows
        ],
    }


def main(values: Any) -> None:
    """Runs the benchmark of the command line."""
    batch_sizes = numbers("batch_size", values.batch_size)
    populations = numbers("population", values.population)
    jax.config.update("jax_platforms", "cpu")
    experiment.cache_compilations()
    experiment.use_cores_as_devices(max(populations, default=1))
    run(
        batch_sizes,
        values.repeats,
        values.threads,
        values.json,
        values.network,
        populations,
        values.steps,
    )


if __name__ == "__main__":
    flags.DEFINE_enum("network", "relu_max", [*contestants.NETWORKS], "What is trained.")
    flags.DEFINE_list("batch_size", ["1", "8", "32", "128", "512", "1024"], "Images a step.")
    flags.DEFINE_list("population", ["1"], "How many models ours trains at once; several.")
    flags.DEFINE_integer("repeats", 5, "Rounds that count.")
    flags.DEFINE_integer("steps", STEPS, f"In each round, of {IMAGES:,} images at most.")
    flags.DEFINE_integer("threads", machine.cores(), "Threads of PyTorch.")
    flags.DEFINE_string("json", None, "A file for the results.")
    run_command(main)
