"""Which test images all variants get wrong, and which only one of them."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from lenet import figures
from lenet.templates.document import Block, Details, Notice, Plot, Section, Table, Text, plot
from lenet.templates.run import Run, diverged, file_name, plural

MAX_PLOTS = 8
MAX_DRAWN = 72


def wrong_by_majority(run: Run) -> Mapping[str, Bool[np.ndarray, " test"]]:
    """Of each variant, which test images more than half of its seeds that finished get wrong."""
    found = {}
    for name in run.labels:
        rows = _rows(run, name)
        if rows:
            found[name] = (run.test_predictions[rows] != run.test_labels).mean(0) > 0.5
    return found


def section(
    run: Run, images: UInt8[np.ndarray, "test height width channel"] | str
) -> Section | None:
    """The test images that every variant gets wrong, and those that only one does.

    Args:
        run: the run.
        images: the test images, or the reason why there are none.
    """
    wrong = wrong_by_majority(run)
    if len(wrong) < 2:
        return None
    votes = np.sum(list(wrong.values()), axis=0)
    common = votes == len(wrong)
    own = {name: mistakes & (votes == 1) for name, mistakes in wrong.items()}
    rows = tuple(
        (run.labels[name], *(f"{int(part.sum()):,}" for part in (mistakes, common, own[name])))
        for name, mistakes in wrong.items()
    )
    blocks: list[Block] = [
        Text(
            f"A test image counts for a variant when more than half of its seeds get it wrong. "
            f"**{plural(int(common.sum()), 'image')}** of {len(votes):,} "
            f"{'is' if common.sum() == 1 else 'are'} wrong for all "
            f"{len(wrong)} variants; {plural(int((votes > 0).sum()), 'image')} for at least one. "
            "Under each image its label, what most of the networks that get it wrong take it for, "
            "and how many of the networks get it wrong."
        ),
        Table(("variant", "wrong", "wrong for all variants", "wrong for this one only"), rows),
    ]
    if isinstance(images, str):
        blocks.append(Notice(f"**The misclassified images are not drawn.** {images}"))
        return Section("Mistakes in common", tuple(blocks))
    groups = {"all": (common, _rows(run, *wrong), "wrong for every variant")}
    for name in wrong:
        what = f"wrong for {run.labels[name]} only"
        groups[f"only_{file_name(name)}"] = (own[name], _rows(run, name), what)
    drawn = [
        _group(run, f"mistakes_{name}", chosen, trials, images, what)
        for name, (chosen, trials, what) in groups.items()
        if chosen.any()
    ]
    if len(drawn) > MAX_PLOTS:
        one_by_one = Details("One by one", tuple(drawn))
        return Section("Mistakes in common", (*blocks, one_by_one))
    return Section("Mistakes in common", (*blocks, *drawn))


def _group(
    run: Run,
    name: str,
    chosen: Bool[np.ndarray, " test"],
    trials: Sequence[int],
    images: UInt8[np.ndarray, "test height width channel"],
    what: str,
) -> Plot:
    names = run.dataset["class_names"]
    wrong = run.test_predictions[list(trials)] != run.test_labels
    share = wrong.mean(0)
    indices = np.flatnonzero(chosen)
    indices = indices[np.argsort(-share[indices], kind="stable")][:MAX_DRAWN]
    indices = indices[np.argsort(run.test_labels[indices], kind="stable")]
    between = "" if max(map(len, names)) <= 2 else "\n"
    captions = []
    for index in indices:
        guesses = run.test_predictions[list(trials), index]
        counts = np.bincount(guesses[guesses != run.test_labels[index]], minlength=len(names))
        captions.append(
            f"{names[run.test_labels[index]]}{between}→{names[int(counts.argmax())]} "
            f"{int(wrong[:, index].sum())}/{len(trials)}"
        )
    total = int(chosen.sum())
    title = f"{plural(total, 'image')} {what}"
    caption = f"Label, what it is taken for, and how many of {len(trials)} networks are wrong."
    if total > len(indices):
        title += f"; here the {len(indices)} that most networks get wrong"
    return plot(
        name,
        figures.image_grid(images[indices], captions, title=title),
        f"A grid of images. {title}.",
        caption,
        wide=True,
        paper=images.shape[-1] == 1,
    )


def _rows(run: Run, *variants: str) -> list[int]:
    """Where in the predictions the trials of these variants stand that finished."""
    return [
        run.trials.index(trial["id"])
        for name in variants
        for trial in run.trials_of(name)
        if not diverged(trial) and trial["id"] in run.trials
    ]
