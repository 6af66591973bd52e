"""Where the time of a training step goes: products and the rest, layer by layer, on one core.

    python -m benchmarks.breakdown [--batch_size=128] [--steps=200] [--convolution=auto]

The ReLU + max LeNet with Adam, traced by XLA's own profiler (`jax.profiler`). An operation belongs
to the layer that its place in the program names. The rate of a layer's products counts only the
multiply-adds that the network needs, as in `benchmarks.throughput`; next to it the rate of a
2048x2048 product on the same core.
"""

import collections
import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rich.box
import rich.table
from absl import flags
from jax.profiler import ProfileData

from benchmarks import contestants, machine
from benchmarks.contestants import Task
from benchmarks.results import CONSOLE, run_command
from lenet import experiment, workdir
from lenet import model as models
from lenet import program as programs

LAYERS = ("c1", "s2", "c3", "s4", "c5", "f6", "output")
REST = "loss, Adam, data"
# An instruction of a compiled program: its name, its operation, and where it comes from.
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = .*?\s([\w-]+)\((.*)$")
PLACE = re.compile(r'op_name="([^"]*)"')
# They last as long as what they call, which is counted itself.
CALLERS = {"while", "call", "conditional"}


@dataclasses.dataclass(frozen=True)
class Part:
    """What operations belong to: a layer or `REST`, and whether they multiply matrices."""

    layer: str
    product: bool


@dataclasses.dataclass(frozen=True)
class Share:
    """One part of a step.

    Attributes:
        seconds: of a step.
        flop_rate: of products, the operations that the network needs per second; else None.
    """

    part: Part
    seconds: float
    flop_rate: float | None


def parts_of(program: str) -> dict[str, Part]:
    """The part of each instruction of a compiled program, given as text; callers left out."""
    found = {}
    for line in program.splitlines():
        matched = INSTRUCTION.match(line)
        if matched is None or matched[2] in CALLERS:
            continue
        place = PLACE.search(matched[3])
        steps = place[1].split("/") if place else []
        layer = next((step for step in steps if step in LAYERS), REST)
        found[matched[1]] = Part(layer, matched[2] == "dot" or steps[-1:] == ["dot_general"])
    return found


def durations(folder: str) -> Iterator[tuple[str, float]]:
    """Name and seconds of every event in a profile that `jax.profiler` left in a folder."""
    for path in Path(folder).rglob("*.xplane.pb"):
        for plane in ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    yield event.name, event.duration_ns / 1e9


def measure(task: Task, steps: int) -> list[Share]:
    """Seconds of a step of one model by part, the greatest first.

    Raises:
        ValueError: if the profile tells of no operation of the program.
    """
    mesh = programs.mesh_for(1)
    images = programs.place(task.pixels, task.labels, mesh)
    compiled: Any = programs.compile_program(task.recipe, 1, images, mesh)
    begun = compiled.create(*programs.place_members(programs.numbers_of([{**task.config}]), mesh))
    members, orders = compiled.start_epoch(begun, images, np.int32(0))
    steps = min(steps, task.recipe.steps_per_epoch // 2)
    advance = compiled.advance
    members = jax.block_until_ready(advance(members, orders, images, np.int32(0), np.int32(steps)))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(
                advance(members, orders, images, np.int32(steps), np.int32(2 * steps))
            )
        known = parts_of(advance.as_text())
        total: dict[Part, float] = collections.defaultdict(float)
        for name, seconds in durations(folder):
            if name in known:
                total[known[name]] += seconds / steps
    if not total:
        raise ValueError("the profiler tells of no operation of the program")
    return _shares(total, task)


def _shares(total: Mapping[Part, float], task: Task) -> list[Share]:
    summary = models.summarize(task.recipe.model, task.pixels.shape[1:])
    needed = {
        # Forward, by weights and, but for the first layer, by inputs; two operations each.
        layer.name: 2 * (2 if layer.name == "c1" else 3) * layer.multiply_adds
        for layer in summary.layers
    }
    shares = [
        Share(
            part,
            seconds,
            needed[part.layer] * task.recipe.batch_size / seconds
            if part.product and part.layer in needed
            else None,
        )
        for part, seconds in total.items()
    ]
    return sorted(shares, key=lambda share: -share.seconds)


def table(shares: Sequence[Share], title: str) -> rich.table.Table:
    """A row a part."""
    drawn = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left")
    drawn.add_column("")
    for column in ("us a step", "share", "GFLOP/s needed"):
        drawn.add_column(column, justify="right")
    whole = sum(share.seconds for share in shares)
    for share in shares:
        rate = "" if share.flop_rate is None else f"{share.flop_rate / 1e9:.0f}"
        what = "products" if share.part.product else "the rest"
        name = REST if share.part == Part(REST, False) else f"{share.part.layer}: {what}"
        drawn.add_row(
            name, f"{1e6 * share.seconds:.0f}", f"{100 * share.seconds / whole:.1f} %", rate
        )
    return drawn


def run(batch_size: int, steps: int, convolution: str, json_path: str | None) -> None:
    """Measures and prints, and writes the JSON file if it has a path.

    Raises:
        ValueError: if an argument is out of range, or there is nothing to tell.
        OSError: if the JSON file cannot be written.
    """
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    described = machine.describe()
    CONSOLE.print(machine.sentence(described))
    task = contestants.create_task(*contestants.load_images(), batch_size, 1)
    model = task.recipe.model.clone(convolution=convolution)
    task = dataclasses.replace(task, recipe=dataclasses.replace(task.recipe, model=model))
    shares = measure(task, steps)
    product = machine.jax_product()
    rate = max(product() for _ in range(5))
    whole = sum(share.seconds for share in shares)
    CONSOLE.print(f"{machine.SIDE}x{machine.SIDE} matrix product on this core: {rate / 1e9:.0f}")
    CONSOLE.print(table(shares, f"batch {batch_size}, one model: {1e6 * whole:.0f} us a step"))
    if json_path:
        workdir.write_json(
            Path(json_path),
            {
                "benchmark": "breakdown",
                "machine": described,
                "images": task.source,
                "batch_size": batch_size,
                "convolution": convolution,
                "matrix_product_flop_per_second": rate,
                "parts": [dataclasses.asdict(share) for share in shares],
            },
        )


def main(values: Any) -> None:
    """Runs the benchmark of the command line."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    jax.config.update("jax_platforms", "cpu")
    experiment.cache_compilations()
    run(values.batch_size, values.steps, values.convolution, values.json)


if __name__ == "__main__":
    flags.DEFINE_integer("batch_size", 128, "Images a step.")
    flags.DEFINE_integer("steps", 200, "Steps traced, after as many that are not.")
    flags.DEFINE_string("convolution", "auto", "As in configs/base.py.")
    flags.DEFINE_string("json", None, "A file for the results.")
    run_command(main)
