"""Seconds per model and epoch: ours next to PyTorch and to plain Flax.

    python -m benchmarks.throughput [--population=1,16] [--batch_size=128] [--repeats=5] [--all]
    python -m benchmarks.throughput --platform=gpu --population=1,100,1000

All train the ReLU + max LeNet with Adam on 60,000 images of 32x32 pixels. Before anything is timed,
one step from the same parameters on the same batch must give the same loss and parameters. Then
the contestants take turns, and a ratio is the median over the rounds of the ratio within a round,
so that what else the machine does falls out of it. `--all` adds the ways of PyTorch and of Flax to
compile, and to train many models at once; they take long. On a GPU all of them train there, in
float32, and PyTorch with CUDA graphs as well.
"""

import dataclasses
import importlib.util
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import rich.box
import rich.table
from absl import flags

from benchmarks import machine
from benchmarks.contestants import (
    Contestant,
    Entry,
    check_agreement,
    create_task,
    load_images,
    mapped_flax,
    ours,
    plain_flax,
    training_flop,
)
from benchmarks.results import CONSOLE, Spread, numbers, run_command
from lenet import experiment, workdir

INSTALL_TORCH = "PyTorch is not installed, so it has no row; for one: pip install torch==2.13.0"
BASELINES = ("PyTorch eager", "plain Flax")
SETTLE_SECONDS = 0.2
STEPS_A_ROUND = 20


@dataclasses.dataclass(frozen=True)
class Row:
    """One contestant's result.

    Attributes:
        seconds: it took.
        ratios: its seconds over those of each baseline.
        flop_rate: the network's own floating-point operations per second.
        share: of the rate of a large matrix product.
    """

    name: str
    seconds: Spread
    ratios: Mapping[str, Spread]
    flop_rate: float
    share: float


def contestants(
    populations: Sequence[int], everyone: bool = False, platform: str = "cpu"
) -> tuple[Contestant, ...]:
    """Ours, and the others that are installed; `everyone` at the largest of the populations."""
    many = max(populations)
    others = [plain_flax()] + ([mapped_flax(many)] if everyone else [])
    if has_torch():
        from benchmarks import pytorch

        more = [pytorch.graphed()] if platform == "gpu" else []
        more += [pytorch.compiled(), pytorch.ensemble(many)] if everyone else []
        others = [pytorch.eager(), *more, *others]
    return (*(ours(members) for members in populations), *others)


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def products(threads: int, platform: str = "cpu") -> dict[str, Callable[[], float]]:
    """Functions that measure the rate of a large matrix product, by library."""
    chosen = {"JAX": machine.jax_product()}
    if has_torch():
        chosen["PyTorch"] = machine.torch_product(threads, platform)
    return chosen


def take_turns(
    turns: Mapping[str, Callable[[], float]], repeats: int, say: Callable[[str], None]
) -> dict[str, Spread]:
    """Calls each function once a round, after a round that is not counted.

    Each round begins with another function, and each function begins on a machine at rest.
    """
    names = list(turns)
    measured: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            time.sleep(SETTLE_SECONDS)
            value = turns[name]()
            if number:
                measured[name].append(value)
        say(f"round {number} of {repeats}" if number else "warm-up round")
    return {name: Spread(tuple(values)) for name, values in measured.items()}


def compare(
    measured: Mapping[str, Spread],
    rates: Mapping[str, Spread],
    flop: float,
    baselines: Sequence[str] = BASELINES,
) -> list[Row]:
    """Rows from the seconds of each contestant, who all do `flop` in them, and product rates."""
    fastest = max(rate.median for rate in rates.values())
    bases = {name: measured[name] for name in baselines if name in measured}
    return [
        Row(
            name,
            seconds,
            {base: seconds / of_base for base, of_base in bases.items()},
            flop / seconds.median,
            flop / seconds.median / fastest,
        )
        for name, seconds in measured.items()
    ]


def table(rows: Sequence[Row], title: str, heading: str) -> rich.table.Table:
    """The rows for a reader, as medians and ranges; time ratios below 1 are faster."""
    drawn = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left")
    drawn.add_column("")
    ratios = [f"time / {baseline}" for baseline in rows[0].ratios]
    for column in (heading, *ratios, "GFLOP/s", "of matrix product"):
        drawn.add_column(column, justify="right")
    for row in rows:
        drawn.add_row(
            row.name,
            row.seconds.text(),
            *(ratio.text() for ratio in row.ratios.values()),
            f"{row.flop_rate / 1e9:.0f}",
            f"{100 * row.share:.0f} %",
        )
    return drawn


def rates_sentence(rates: Mapping[str, Spread]) -> str:
    """The rates of the matrix products in one line."""
    told = ", ".join(f"{(rate * 1e-9).text(0)} by {name}" for name, rate in rates.items())
    return f"{machine.SIDE}x{machine.SIDE} matrix product, GFLOP/s: {told}"


def rates_to_json(rates: Mapping[str, Spread]) -> dict[str, Any]:
    """The same for a JSON file."""
    return {name: rate.to_json() for name, rate in rates.items()}


def run(
    populations: Sequence[int],
    batch_size: int,
    repeats: int,
    fraction: float,
    threads: int,
    json_path: str | None,
    everyone: bool = False,
    platform: str = "cpu",
) -> None:
    """Checks, times and prints; and writes the JSON file if it has a path.

    Raises:
        ValueError: if an argument is out of range, or the contestants disagree.
        OSError: if the JSON file cannot be written.
    """
    if not populations or min(populations) < 1 or len({*populations}) < len(populations):
        raise ValueError(f"population={[*populations]} must be different numbers from 1 up")
    if repeats < 1 or threads < 1 or not 0 < fraction <= 1:
        raise ValueError(
            f"repeats={repeats} and threads={threads} must be at least 1, fraction={fraction} "
            "above 0 and at most 1"
        )
    described = machine.describe(platform)
    CONSOLE.print(machine.sentence(described))
    if not has_torch():
        CONSOLE.print(INSTALL_TORCH)
    task = create_task(*load_images(), batch_size, threads, platform=platform)
    examples = len(task.labels)
    CONSOLE.print(f"{examples:,} images: {task.source}")

    entries: list[tuple[Contestant, Entry]] = []
    for contestant in contestants(populations, everyone, platform):
        CONSOLE.print(f"preparing {contestant.name}")
        entries.append((contestant, contestant.make(task)))
    outcomes = {who.name: entry.first_step(task.start) for who, entry in entries}
    check_agreement(outcomes, task)
    CONSOLE.print("the first step of all agrees")

    count = max(1, round(fraction * examples))
    least = min(count, STEPS_A_ROUND * batch_size)
    rates = products(threads, platform)
    turns = {
        who.name: _turn(who, entry, max(count // who.members, least), examples)
        for who, entry in entries
    }
    measured = take_turns({**rates, **turns}, repeats, CONSOLE.print)

    flop = training_flop(task.recipe.model, task.pixels.shape[1:])
    product_rates = {name: measured[name] for name in rates}
    rows = compare({name: measured[name] for name in turns}, product_rates, flop * examples)
    CONSOLE.print(rates_sentence(product_rates))
    title = f"batch {batch_size}, {repeats} rounds of about {count:,} images"
    CONSOLE.print(table(rows, title, "s / model and epoch"))
    if json_path:
        workdir.write_json(
            Path(json_path),
            {
                "benchmark": "throughput",
                "machine": described,
                "images": task.source,
                "batch_size": batch_size,
                "repeats": repeats,
                "fraction": fraction,
                "threads": threads,
                "training_flop_per_image": flop,
                "matrix_product_flop_per_second": rates_to_json(product_rates),
                "rows": [
                    _row_to_json(row, who.members)
                    for row, (who, _) in zip(rows, entries, strict=True)
                ],
            },
        )


def _turn(who: Contestant, entry: Entry, count: int, examples: int) -> Callable[[], float]:
    return lambda: entry.train(count) * examples / count / who.members


def _row_to_json(row: Row, members: int) -> dict[str, Any]:
    return {
        "name": row.name,
        "members": members,
        "seconds_per_model_epoch": row.seconds.to_json(),
        "time_ratios": {name: ratio.to_json() for name, ratio in row.ratios.items()},
        "flop_per_second": row.flop_rate,
        "share_of_matrix_product": row.share,
    }


def choose_platform(platform: str) -> None:
    """Makes JAX compute on the `cpu` or the `gpu`.

    Raises:
        ValueError: if there is no such platform here.
    """
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
        return
    # JAX would take most of its memory for itself, and PyTorch is to train there too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if jax.default_backend() == "cpu":
        raise ValueError(
            "--platform=gpu: JAX finds no GPU; for one of NVIDIA: pip install jax[cuda13]"
        )


def main(values: Any) -> None:
    """Runs the benchmark of the command line."""
    populations = numbers("population", values.population)
    choose_platform(values.platform)
    experiment.cache_compilations()
    experiment.use_cores_as_devices(max(populations, default=1))
    run(
        populations,
        values.batch_size,
        values.repeats,
        values.fraction,
        values.threads,
        values.json,
        values.all,
        values.platform,
    )


if __name__ == "__main__":
    flags.DEFINE_list("population", ["1", "16"], "How many models ours trains at once; several.")
    flags.DEFINE_integer("batch_size", 128, "Images a step and model.")
    flags.DEFINE_integer("repeats", 5, "Rounds that count.")
    flags.DEFINE_float("fraction", 0.25, "Of an epoch, in each round.")
    flags.DEFINE_integer("threads", machine.cores(), "Threads of PyTorch.")
    flags.DEFINE_bool("all", False, "Also what takes long: torch.compile, torch.func, Flax vmap.")
    flags.DEFINE_enum("platform", "cpu", ["cpu", "gpu"], "Where all of them train.")
    flags.DEFINE_string("json", None, "A file for the results.")
    run_command(main)
