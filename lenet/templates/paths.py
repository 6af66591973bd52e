"""Changes one at a time: along the path that a config declares, and beside its references."""

from collections.abc import Sequence

from lenet import figures
from lenet.templates.comparisons import (
    STATISTICS,
    cells,
    comparison_sentence,
    established,
    how,
)
from lenet.templates.document import Block, Bullets, Details, Notice, Section, Table, Text, plot
from lenet.templates.run import Fields, Run, pair, percent, phrase, plural, points


def path(run: Run) -> Section | None:
    """Each variant of the path beside the one before it: in words, as a figure, as a table."""
    found = run.summary.get("path")
    if not found:
        return None
    steps, whole, labels = found["steps"], found["whole"], run.labels
    first, last = labels[whole["b"]], labels[whole["a"]]
    names = [whole["b"], *(entry["a"] for entry in steps)]
    variants = _variants(run)
    drawn = [
        figures.Step(
            labels[name] if entry is None else _step_label(run, entry),
            variants[name]["test_error_mean"],
            pair(variants[name]["test_error_ci95"]),
            None if entry is None else _difference(run, entry),
            variants[name]["diverged"],
        )
        for name, entry in zip(names, (None, *steps), strict=True)
    ]
    ends = " to ".join(percent(step.mean) for step in (drawn[0], drawn[-1]))
    title = f"From {first} to {last}, {ends}: {_count(steps)}"
    blocks: list[Block] = [
        Text(
            f"From end to end: {comparison_sentence(whole, labels.__getitem__)} Of the "
            f"{plural(len(steps), 'step')} between, {_count(steps)}.{_greatest(run, steps)}"
        ),
        *_lost(run, names),
        plot(
            "path",
            figures.waterfall(drawn, title=title),
            f"The test error after each step of the path, and what the step changed. {title}.",
            "Left: the mean test error over seeds after each step, with its 95 % interval; the bar "
            "leads there from the error before. Right: the mean change over the seeds that both "
            "have, with its 95 % interval (not corrected for the number of steps). In colour: p "
            "below 0.05 after Holm's correction for all steps of the path.",
            wide=True,
        ),
        Bullets(tuple(_step_sentence(run, entry) for entry in steps)),
        Text(
            f"{how(steps)} Each change is made on top of those before it; in another order it may "
            "do more, or less."
        ),
        Details("The path, in numbers", (_table(run, [*steps, whole]),)),
    ]
    return Section(f"The path from {first} to {last}", tuple(blocks))


def references(run: Run) -> tuple[Section, ...]:
    """Of each reference what single changes make of it: in words, as a figure, as a table."""
    found = run.summary.get("references") or {}
    return tuple(_reference(run, index, *item) for index, item in enumerate(found.items()))


def _reference(run: Run, index: int, name: str, found: Sequence[Fields]) -> Section:
    label = run.labels[name]
    rows = [change for entry in found if (change := _difference(run, entry)) is not None]
    error = percent(_variants(run)[name]["test_error_mean"])
    title = f"{label} ({error}) with one change: {_count(found)}"
    drawn = plot(
        f"reference_{index}",
        figures.changes(rows, title=title, xlabel=f"test error minus that of {label} (points)"),
        f"What single changes make of the test error of {label}. {title}.",
        "Mean difference over the seeds that both have, with its 95 % interval (not corrected for "
        "the number of changes); left of the line the error is lower. In colour: p below 0.05 "
        "after Holm's correction for all changes of this figure.",
    )
    sentences = Bullets(tuple(comparison_sentence(e, run.labels.__getitem__) for e in found))
    return Section(
        f"{label} with one change",
        (
            Text(f"Of {plural(len(found), 'change')}, {_count(found)}.{_greatest(run, found)}"),
            *_lost(run, [name, *(entry["a"] for entry in found)]),
            *((drawn,) if rows else ()),
            Details("In words", (sentences,)),
            Text(f"{how(found)} Each change is made alone; two together may do something else."),
            Details("Every change, in numbers", (_table(run, found),)),
        ),
    )


def _changed(run: Run, entry: Fields) -> list[str]:
    """The values in which a of a comparison differs from b."""
    own = {trial["variant"]: trial["overrides"] for trial in run.summary["trials"]}
    a, b = ({**run.config, **own[entry[side]], "seed": 0} for side in ("a", "b"))
    return [phrase(field, value) for field, value in a.items() if value != b.get(field)]


def _step_label(run: Run, entry: Fields) -> str:
    """The name of a step, and the one value that it changes where the name does not say that."""
    label, changed = run.labels[entry["a"]], _changed(run, entry)
    if len(changed) != 1 or label.startswith("+") or changed[0] in label:
        return label
    return f"{label}: {changed[0]}"


def _step_sentence(run: Run, entry: Fields) -> str:
    changed = ", ".join(_changed(run, entry)) or "nothing"
    return f"Changed: {changed}. {comparison_sentence(entry, run.labels.__getitem__)}"


def _variants(run: Run) -> dict[str, Fields]:
    return {variant["name"]: variant for variant in run.summary["variants"]}


def _difference(run: Run, entry: Fields) -> figures.Difference | None:
    if entry["difference"] is None:
        return None
    label = run.labels[entry["a"]]
    return figures.Difference(label, entry["difference"], pair(entry["ci95"]), established(entry))


def _count(found: Sequence[Fields]) -> str:
    """How many comparisons go which way: `2 lower the error, 1 raises it, 3 cannot be told`."""
    told = [entry for entry in found if established(entry)]
    lower = sum(entry["difference"] < 0 for entry in told)
    higher, unknown = len(told) - lower, len(found) - len(told)
    parts = [
        f"{lower or 'none'} {'lowers' if lower == 1 else 'lower'} the error",
        f"{higher or 'none'} {'raises' if higher == 1 else 'raise'} it",
        *([f"{unknown} cannot be told from no change"] if unknown else []),
    ]
    return ", ".join(parts)


def _greatest(run: Run, found: Sequence[Fields]) -> str:
    """The changes that lower and that raise the error most, among those that can be told."""
    told = sorted(filter(established, found), key=lambda entry: entry["difference"])
    text = ""
    if told and told[0]["difference"] < 0:
        text += f" **{run.labels[told[0]['a']]}** lowers it most, "
        text += f"by {points(-told[0]['difference'])} points."
    if told and told[-1]["difference"] > 0:
        text += f" **{run.labels[told[-1]['a']]}** raises it most, "
        text += f"by {points(told[-1]['difference'])} points."
    return text


def _lost(run: Run, names: Sequence[str]) -> tuple[Notice, ...]:
    """A warning of the variants with seeds that diverged, which their differences leave out."""
    variants = _variants(run)
    found = [
        f"{run.labels[name]} with {lost} of {plural(lost + variants[name]['n'], 'seed')}"
        for name in names
        if (lost := variants[name]["diverged"])
    ]
    if not found:
        return ()
    return (
        Notice(
            f"**Diverged**: {'; '.join(found)}. Means and differences are those of the seeds that "
            "are left, which speaks for these variants more than they deserve."
        ),
    )


def _table(run: Run, found: Sequence[Fields]) -> Table:
    variants, labels = _variants(run), run.labels
    return Table(
        ("variant", "against", "changed", "mean test error", "diverged", *STATISTICS),
        tuple(
            (
                labels[entry["a"]],
                labels[entry["b"]],
                ", ".join(_changed(run, entry)),
                percent(variants[entry["a"]]["test_error_mean"]),
                str(variants[entry["a"]]["diverged"]),
                *cells(entry),
            )
            for entry in found
        ),
    )
