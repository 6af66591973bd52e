"""Draws a run's report from its workdir: `report.md`, `report.html` and `figures/*.svg`.

    python -m lenet.report --workdir=runs/a

Nothing is read but the workdir's files, its checkpoints among them, and the data set for the
pictures of its test images. `sections` says what stands in a report, and in which order: a new kind
of result is one more function in `lenet.templates`.
"""

import collections
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from jaxtyping import Float, Int, UInt8

from lenet import checkpoints, codes, data, layers
from lenet.files import write_atomically
from lenet.registry import lookup
from lenet.templates import (
    agreement,
    bitmaps,
    comparisons,
    distorted,
    document,
    inside,
    many_trials,
    one_trial,
    paper,
    paths,
    shared,
    stability,
    sweeps,
)
from lenet.templates.document import Section
from lenet.templates.run import Portrait, Run

FILES = ("config.json", "dataset.json", "metrics.jsonl", "summary.json", "predictions.npz")
SUMMARY_FIELDS = ("dataset", "environment", "timing", "trials", "variants", "models")
PREDICTIONS = ("trials", "test_labels", "test_predictions", "test_probabilities")
# Images to send through a network at once.
BATCH = 1000


def write(workdir: str) -> None:
    """Draws `report.md`, `report.html` and `figures/*.svg` of a finished run into its workdir.

    Raises:
        FileNotFoundError: if the workdir lacks a file that a finished run has.
        ValueError: if one of these files is broken.
    """
    run = read(workdir)
    title = headline(run)
    images = data.load_test_images(run.config, run.dataset)
    drawn = sections(run, images, load_portraits(run, workdir, images))
    folder = Path(workdir)
    texts = {
        **{f"figures/{plot.name}.svg": plot.svg for plot in document.plots(drawn)},
        "report.md": document.to_markdown(title, drawn),
        "report.html": document.to_html(title, drawn),
    }
    for name, text in texts.items():
        content = text.encode()
        write_atomically(folder / name, lambda file, content=content: file.write(content))
    for figure in (folder / "figures").glob("*.svg"):
        if f"figures/{figure.name}" not in texts:  # Of an earlier report.
            figure.unlink()


def read(workdir: str) -> Run:
    """What a finished run left in its workdir.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is broken.
    """
    folder = Path(workdir)
    if not folder.is_dir():
        raise FileNotFoundError(f"workdir {workdir} does not exist; name the folder of a run")
    for name in FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"workdir {workdir} has no {name}; a report needs a run that has finished"
            )
    summary = _read_json(folder / "summary.json")
    for field in SUMMARY_FIELDS:
        if field not in summary:
            raise ValueError(f"{folder / 'summary.json'} is broken: it has no field {field!r}")
    try:
        with np.load(folder / "predictions.npz", allow_pickle=False) as file:
            predictions = {name: file[name] for name in PREDICTIONS}
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{folder / 'predictions.npz'} is broken: {error}") from error
    return Run(
        config=_read_json(folder / "config.json"),
        dataset=_read_json(folder / "dataset.json"),
        summary=summary,
        metrics=_read_metrics(folder / "metrics.jsonl"),
        trials=tuple(str(trial) for trial in predictions["trials"]),
        test_labels=predictions["test_labels"],
        test_predictions=predictions["test_predictions"],
        test_probabilities=predictions["test_probabilities"],
    )


def load_portraits(
    run: Run, workdir: str, images: UInt8[np.ndarray, "test height width channel"] | str
) -> tuple[Portrait, ...] | str:
    """Of each variant the inside of its first network, or a sentence that says why there is none.

    Args:
        run: the run.
        workdir: where its checkpoints are.
        images: the test images; the maps are those of the first, and f6 is a mean over all. If
            there are none, neither is made.
    """
    found = []
    for trial in shared.representatives(run):
        try:
            trained = checkpoints.load_trained(workdir, trial["id"])
        except (OSError, ValueError) as error:
            return f"{str(error)[:1].upper()}{str(error)[1:]}."
        kernels = np.asarray(trained.params["c1"]["kernel"])
        maps = {} if isinstance(images, str) else feature_maps(trained, images[0])
        f6 = None
        if trained.model.head == "rbf" and not isinstance(images, str):
            f6 = mean_f6(trained, images, run.test_labels)
        found.append(Portrait(trial["variant"], trial["seed"], kernels, maps, f6))
    return tuple(found) or "Every trial diverged."


def feature_maps(
    trained: checkpoints.Trained, image: UInt8[np.ndarray, "height width channel"]
) -> dict[str, Float[np.ndarray, "_ _ _"]]:
    """What c1 s2 c3 s4 make of an image, map height width; c1 and c3 after the activation."""
    _, captured = trained.model.apply(
        {"params": trained.params},
        trained.shown(image[None]),
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    activate = lookup(layers.ACTIVATIONS, trained.model.activation, "activation")
    found = {}
    for name in ("c1", "s2", "c3", "s4"):
        (maps,) = captured["intermediates"][name]["__call__"]
        if name.startswith("c"):
            maps = activate(layers.merge_phases(maps))
        found[name] = np.asarray(maps[..., 0])
    return found


def mean_f6(
    trained: checkpoints.Trained,
    images: UInt8[np.ndarray, "test height width channel"],
    labels: Int[np.ndarray, " test"],
) -> Float[np.ndarray, "classes 12 7"]:
    """What f6 makes of the images of each class on average, as the bitmap that it draws."""
    units = jax.jit(
        lambda params, batch: trained.model.apply({"params": params}, batch, trained_part=True)
    )
    sums = np.zeros((trained.model.classes, codes.UNITS))
    for start in range(0, len(images), BATCH):
        batch = units(trained.params, trained.shown(images[start : start + BATCH]))
        np.add.at(sums, labels[start : start + BATCH], np.asarray(batch))
    counts = np.bincount(labels, minlength=trained.model.classes)
    means = sums / np.maximum(counts, 1)[:, None]
    return means.reshape(-1, codes.HEIGHT, codes.WIDTH)


def headline(run: Run) -> str:
    """The report's title: what was trained on what, and what came out."""
    return (one_trial if len(run.summary["trials"]) == 1 else many_trials).headline(run)


def sections(
    run: Run,
    images: UInt8[np.ndarray, "test height width channel"] | str,
    portraits: Sequence[Portrait] | str,
) -> tuple[Section, ...]:
    """The whole report; of images and portraits, what there is or the reason why there is none."""
    results: tuple[Section | None, ...]
    if len(run.summary["trials"]) == 1:
        results = (
            one_trial.overview(run),
            paper.section(run),
            stability.section(run),
            one_trial.learning(run),
        )
    else:
        results = (
            many_trials.overview(run),
            paths.path(run),
            *paths.references(run),
            paper.section(run),
            stability.section(run),
            # With a path, what is to be compared has been said; of so many pairs, all is noise.
            None if run.config.get("path") else comparisons.support(run),
            many_trials.errors(run),
            sweeps.grid(run),
            sweeps.trends(run),
            comparisons.effects(run),
            many_trials.learning(run),
            sweeps.time(run),
            sweeps.tuning(run),
            agreement.section(run, images),
        )
    results = (
        *results,
        shared.mistakes(run, images),
        distorted.section(run, images),
        inside.section(run, portraits),
        bitmaps.section(run, portraits),
    )
    return (
        *(section for section in results if section is not None),
        shared.models(run),
        shared.timing(run),
        shared.reproduce(run),
    )


def _read_json(path: Path) -> Any:
    return _parse_json(path, path.read_text("utf-8"))


def _parse_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is broken: {error}") from error


def _read_metrics(path: Path) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Of each trial its lines by epoch; of an epoch that was trained twice, the later one.

    Lines of the tuning stage belong to trials that the summary does not list.
    """
    lines: dict[str, dict[int, Mapping[str, Any]]] = collections.defaultdict(dict)
    for text in path.read_text("utf-8").splitlines():
        line = _parse_json(path, text)
        if line.get("stage") == "tune":
            continue
        lines[line["trial"]][line["epoch"]] = line
    return {trial: [epochs[epoch] for epoch in sorted(epochs)] for trial, epochs in lines.items()}


def main(argv: Sequence[str]) -> None:
    """Draws the report of the run in `--workdir` again."""
    workdir = flags.FLAGS.workdir
    if not workdir or argv[1:]:
        sys.exit("usage: python -m lenet.report --workdir=FOLDER, the folder of a finished run")
    try:
        write(workdir)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(Path(workdir) / "report.html")


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a finished run.")
    app.call_after_init(lambda: logging.set_verbosity(logging.WARNING))
    app.run(main)
