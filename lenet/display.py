"""What a run shows: plain lines in a log, and a progress bar besides on a terminal."""

import contextlib
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import rich.box
import rich.console
import rich.logging
import rich.progress
import rich.table
import rich.text

from lenet.model import ModelSummary
from lenet.sweep import Plan, Trial, populations
from lenet.templates.run import duration

CONSOLE = rich.console.Console(highlight=False, soft_wrap=True)
LOG_EVERY_SECONDS = 30.0
MAX_NAMES = 3

log = logging.getLogger(__name__)


def show_logs() -> None:
    """Sends the package's log to the screen, above the progress bar if there is one."""
    handler: logging.Handler = logging.StreamHandler()
    if CONSOLE.is_terminal:
        handler = rich.logging.RichHandler(
            console=CONSOLE, show_time=False, show_level=False, show_path=False, markup=False
        )
    handler.setFormatter(logging.Formatter("%(message)s"))
    package = logging.getLogger("lenet")
    package.handlers = [handler]
    package.setLevel(logging.INFO)
    package.propagate = False
    # They say in many lines what is raised in the main thread as well, as when the disk is full.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    threading.excepthook = lambda failure: log.warning(
        "%s: %s", getattr(failure.thread, "name", "thread"), failure.exc_value
    )
    sys.unraisablehook = lambda failure: log.debug("ignored: %s", failure.exc_value)


def show_warnings_only() -> None:
    """Shows no more than warnings, as beside another process that shows the run."""
    CONSOLE.quiet = True
    logging.getLogger("lenet").setLevel(logging.WARNING)


@contextlib.contextmanager
def progress(description: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """Shows how far a run is and how long it still takes.

    Args:
        description: what is running.
        total: its steps.
        done: those done before.

    Yields:
        A function to be told how many steps are done. Without a terminal it logs a line at most
        every LOG_EVERY_SECONDS.
    """
    began = logged = time.monotonic()

    def report(now_done: int) -> None:
        nonlocal logged
        now = time.monotonic()
        bar.update(task, completed=now_done)
        if not CONSOLE.is_terminal and now - logged >= LOG_EVERY_SECONDS and now_done > done:
            left = (now - began) / (now_done - done) * (total - now_done)
            share = now_done / total
            log.info("%s: %.0f %% done, %s left", description, 100 * share, duration(left))
            logged = now

    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TextColumn("step {task.completed}/{task.total}"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("left"),
        rich.progress.TimeRemainingColumn(),
    )
    bar = rich.progress.Progress(*columns, console=CONSOLE, disable=not CONSOLE.is_terminal)
    with bar:
        task = bar.add_task(description, total=total, completed=done)
        yield report


def model_tables(networks: Mapping[str, ModelSummary]) -> tuple[rich.table.Table, ...]:
    """Networks layer by layer, by variant; each once, under the first variants that have it."""
    sharing: dict[str, list[str]] = {}
    for variant, network in networks.items():
        sharing.setdefault(repr(network), []).append(variant)
    tables = []
    for names in sharing.values():
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        tables.append(model_table("; ".join(names[:MAX_NAMES]) + more, networks[names[0]]))
    return tuple(tables)


def model_table(name: str, summary: ModelSummary) -> rich.table.Table:
    """A network layer by layer."""
    share = 100 * summary.fully_connected_share
    table = rich.table.Table(
        title=name,
        caption=f"{share:.1f} % of the parameters are in fully connected layers",
        box=rich.box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("layer")
    for heading in ("output", "receptive field", "parameters", "connections", "multiply-adds"):
        table.add_column(heading, justify="right")
    for layer in summary.layers:
        table.add_row(
            layer.name,
            "x".join(map(str, layer.output_shape)),
            f"{layer.receptive_field}x{layer.receptive_field}",
            f"{layer.parameters:,}",
            f"{layer.connections:,}",
            f"{layer.multiply_adds:,}",
            end_section=layer is summary.layers[-1],
        )
    totals = (summary.parameters, summary.connections, summary.multiply_adds)
    table.add_row("total", "", "", *(f"{total:,}" for total in totals))
    return table


def plan_table(plan: Plan, steps: Callable[[Trial], int]) -> rich.table.Table:
    """What will be trained, a row a stage and variant; `steps` says how many a trial takes."""
    stages = {"tune": plan.tuning, "final": plan.final({})}
    count = sum(len(populations(trials)) for trials in stages.values())
    total = [trial for trials in stages.values() for trial in trials]
    model_epochs = sum(trial.fields["num_epochs"] for trial in total)
    table = rich.table.Table(
        title="to train",
        caption=(
            f"in all {len(total):,} models in {count:,} "
            f"populations, {model_epochs:,} model-epochs, {sum(map(steps, total)):,} model-steps; "
            "populations train one after another; their models at once, as one program"
        ),
        box=rich.box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("stage", no_wrap=True)
    table.add_column("variant")
    for heading in ("models", "epochs", "steps each"):
        table.add_column(heading, justify="right", no_wrap=True)
    for stage, trials in stages.items():
        for variant in dict.fromkeys(trial.variant for trial in trials):
            own = tuple(trial for trial in trials if trial.variant == variant)
            epochs = dict.fromkeys(f"{trial.fields['num_epochs']:,}" for trial in own)
            each = dict.fromkeys(f"{steps(trial):,}" for trial in own)
            table.add_row(
                stage,
                # So that a long name is wrapped between its fields.
                rich.text.Text(re.sub(r",(?=\S)", ", ", variant)),
                str(len(own)),
                ", ".join(epochs),
                ", ".join(each),
            )
    return table
