"""What f6 draws of each class, and the bitmap that it is asked to draw (figure 3 of the paper)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lenet import codes, figures
from lenet.templates.document import Plot, Section, Text, plot
from lenet.templates.run import Portrait, Run, file_name


def section(run: Run, portraits: Sequence[Portrait] | str) -> Section | None:
    """The codes, and what f6 of one network a variant draws instead.

    Args:
        run: the run.
        portraits: of each variant one network, or the reason why there is none.
    """
    if isinstance(portraits, str):
        return None
    drawn = [
        _drawn_by(run, portrait, portrait.f6) for portrait in portraits if portrait.f6 is not None
    ]
    if not drawn:
        return None
    least, greatest = _code_distances(len(run.dataset["class_names"]))
    text = (
        "The output layer compares the 84 units of f6 with a bitmap of each class, 7 pixels wide "
        "and 12 high; the nearest one names the class. Upper row: the bitmaps, which were chosen "
        "by hand and are fixed. Lower row: the mean of f6 over the test images of each class. "
        "Blank is -1 and less, full 1 and more. Under each column the squared distance of its two "
        f"pictures, summed over the units; two bitmaps are {least:.0f} to {greatest:.0f} apart."
    )
    return Section("What f6 draws", (Text(text), *drawn))


def _drawn_by(run: Run, portrait: Portrait, f6: Float[np.ndarray, "classes 12 7"]) -> Plot:
    names = run.dataset["class_names"]
    asked = codes.BITMAPS[: len(f6)]
    distances = ((f6[:, None] - asked[None]) ** 2).sum(axis=(2, 3))
    own, nearest = np.diag(distances), distances.argmin(axis=1)
    mistaken = np.flatnonzero(nearest != np.arange(len(f6)))
    title = f"Drawn best: {names[own.argmin()]}; worst: {names[own.argmax()]}"
    if len(mistaken):
        first = mistaken[0]
        title = f"What is drawn for {names[first]} is nearer to {names[nearest[first]]}"
    label = run.labels.get(portrait.variant, portrait.variant)
    return plot(
        "bitmaps" if len(run.labels) == 1 else f"bitmaps_{file_name(portrait.variant)}",
        figures.bitmaps(
            asked,
            f6,
            [f"{name}\n{distance:.1f}" for name, distance in zip(names, own, strict=True)],
            title=title,
        ),
        f"The bitmap of each class, and under it the mean of f6. {title}.",
        f"{label}, seed {portrait.seed}.",
    )


def _code_distances(classes: int) -> tuple[float, float]:
    """The least and the greatest squared distance of two codes."""
    asked = codes.BITMAPS[:classes].reshape(-1, codes.UNITS)
    distances = ((asked[:, None] - asked[None]) ** 2).sum(axis=2)[np.triu_indices(len(asked), 1)]
    return float(distances.min()), float(distances.max())
