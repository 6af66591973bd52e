"""Seconds to classify 10,000 images with every model of a population: ours next to PyTorch.

    python -m benchmarks.evaluate [--population=16] [--repeats=5]

All have the same parameters and must name the same classes before anything is timed. A product of
large matrices takes its turns too.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks import contestants, machine, throughput
from benchmarks.contestants import AgreementError, Task
from benchmarks.results import CONSOLE, run_command
from lenet import experiment, workdir
from lenet import model as models
from lenet import program as programs

IMAGES = 10_000
# Two networks whose outputs differ by rounding may differ on an image in a thousand.
DISAGREEMENT = 1e-3

Classify = Callable[[], np.ndarray]


def classifiers(task: Task, members: int, count: int) -> dict[str, Classify]:
    """Functions that give the class of each image by each model, "member image"."""
    mesh = programs.mesh_for(members)
    images = programs.place(task.pixels[:count], task.labels[:count], mesh)
    missing = -members % mesh.size
    recipe = task.recipe
    program = programs.compile_program(recipe, members + missing, images, mesh)
    trials = [{**task.config, "seed": seed} for seed in range(members)]
    numbers = programs.numbers_of([*trials, *trials[-1:] * missing])
    population = program.create(*programs.place_members(numbers, mesh))

    def ours() -> np.ndarray:
        told = programs.evaluate(program, population, images, 0, count)
        return told["prediction"][:members]

    found: dict[str, Classify] = {"ours": ours}
    if throughput.has_torch():
        from benchmarks import pytorch

        params = jax.device_get(population.state.params)
        each = [
            jax.tree.map(lambda leaf, m=member: leaf[m], dict(params)) for member in range(members)
        ]
        found["PyTorch eager"] = pytorch.classifier(task, each, count)
    return found


def check_agreement(found: Mapping[str, np.ndarray]) -> None:
    """Checks that all name the same classes, but for rounding.

    Raises:
        AgreementError: naming who does not.
    """
    (first, expected), *others = found.items()
    for name, classes in others:
        differing = float((classes != expected).mean())
        if differing > DISAGREEMENT:
            raise AgreementError(f"{name} and {first} differ on {100 * differing:.2f} % of images")


def run(members: int, repeats: int, threads: int, json_path: str | None) -> None:
    """Checks, times and prints, and writes the JSON file if it has a path.

    Raises:
        ValueError: if an argument is out of range, or the classifiers disagree.
        OSError: if the JSON file cannot be written.
    """
    if min(members, repeats, threads) < 1:
        raise ValueError(
            f"population={members}, repeats={repeats} and threads={threads} must be at least 1"
        )
    described = machine.describe()
    CONSOLE.print(machine.sentence(described))
    if not throughput.has_torch():
        CONSOLE.print(throughput.INSTALL_TORCH)
    task = contestants.create_task(*contestants.load_images(), 128, threads)
    count = min(IMAGES, len(task.labels))
    CONSOLE.print(f"{count:,} images: {task.source}")
    found = classifiers(task, members, count)
    check_agreement({name: classify() for name, classify in found.items()})
    turns = {name: machine.timed(classify) for name, classify in found.items()}
    rates = throughput.products(threads)
    measured = throughput.take_turns({**rates, **turns}, repeats, CONSOLE.print)
    product_rates = {name: measured[name] for name in rates}
    summary = models.summarize(task.recipe.model, task.pixels.shape[1:])
    rows = throughput.compare(
        {name: measured[name] for name in turns},
        product_rates,
        2 * summary.multiply_adds * members * count,
    )
    CONSOLE.print(throughput.rates_sentence(product_rates))
    CONSOLE.print(throughput.table(rows, f"{count:,} images, {members} models", "seconds"))
    if json_path:
        workdir.write_json(
            Path(json_path),
            {
                "benchmark": "evaluate",
                "machine": described,
                "members": members,
                "source": task.source,
                "images": count,
                "repeats": repeats,
                "threads": threads,
                "matrix_product_flop_per_second": throughput.rates_to_json(product_rates),
                "rows": [
                    {
                        "name": row.name,
                        "seconds": row.seconds.to_json(),
                        "share_of_matrix_product": row.share,
                    }
                    for row in rows
                ],
            },
        )


def main(values: Any) -> None:
    """Runs the benchmark of the command line."""
    jax.config.update("jax_platforms", "cpu")
    experiment.cache_compilations()
    experiment.use_cores_as_devices(values.population)
    run(values.population, values.repeats, values.threads, values.json)


if __name__ == "__main__":
    flags.DEFINE_integer("population", 16, "Models.")
    flags.DEFINE_integer("repeats", 5, "Rounds that count.")
    flags.DEFINE_integer("threads", machine.cores(), "Threads of PyTorch.")
    flags.DEFINE_string("json", None, "A file for the results.")
    run_command(main)
