"""What the differences between variants, and the effects of factors, allow one to say."""

from collections.abc import Callable, Mapping, Sequence

from lenet import figures
from lenet.templates.document import Block, Bullets, Details, Section, Table, Text, plot
from lenet.templates.run import (
    Fields,
    Run,
    p_text,
    pair,
    phrase,
    plural,
    points,
    span,
)

LEVEL = 0.05
MAX_SENTENCES = 6
MAX_ROWS = 15
# The header of `cells`.
STATISTICS = ("difference (points)", "95 % interval", "p", "p (Holm)", "seeds", "dropped")
NOT_EQUAL = (
    "What cannot be told apart need not be equal: its interval says which differences remain "
    "possible."
)


def established(entry: Fields) -> bool:
    """Whether a difference is there at the 5 % level, after Holm's correction."""
    corrected = entry.get("p_value_holm", entry["p_value"])
    return corrected is not None and corrected < LEVEL


def comparison_sentence(entry: Fields, names: Callable[[str], str]) -> str:
    """What one comparison of two variants supports."""
    return _sentence(entry, names(entry["a"]), names(entry["b"]))


def effect_sentence(effect: Fields) -> str:
    """What one main effect or interaction supports."""
    levels = _phrases(effect, "levels")
    before = _phrases(effect, "reference")
    if effect["kind"] == "main":
        return _sentence({**effect, "dropped": 0}, levels[0], before[0])
    if not established(effect):
        reason = _no_test(effect) or (
            f"the difference of the differences is {points(effect['difference'])} points, "
            f"interval {span(effect['ci95'])}{_despite(effect)}"
        )
        return (
            f"Whether the step from {before[0]} to {levels[0]} depends on "
            f"{_word(effect['factors'][1])} ({before[1]} or {levels[1]}) cannot be told with n = "
            f"{effect['n']}: {reason}."
        )
    more = "higher" if effect["difference"] > 0 else "lower"
    low, high = sorted(abs(bound) for bound in effect["ci95"])
    return (
        f"The change in test error from {before[0]} to {levels[0]} is "
        f"{points(abs(effect['difference']))} points {more} with {levels[1]} than with "
        f"{before[1]} ({points(low)} to {points(high)}, {_p(effect)}, n = {effect['n']})."
    )


def support(run: Run) -> Section | None:
    """Which variants can be told apart, in words, as a figure and as a table.

    Of many pairs, only those with the variant of the lowest mean are spoken of.
    """
    found = run.summary.get("comparisons") or []
    if not found:
        return None
    if all(entry["difference"] is None for entry in found):
        nothing = "No two variants can be compared: no seed has a result in both."
        return Section("What the data support", (Text(nothing),))
    labels = run.labels
    told = sum(map(established, found))
    best = _best(run)
    if len(found) <= MAX_SENTENCES:
        shown = list(found)
        sentences = Bullets(_in_words(shown, labels))
        words: tuple[Block, ...] = (sentences,)
        names = [f"{labels[entry['a']]}\nvs {labels[entry['b']]}" for entry in shown]
        xlabel = "test error of the first minus the second (points)"
        title = f"{told} of {len(found)} pairs of variants can be told apart"
        if len(found) == 1:
            title = comparison_title(found[0], labels.__getitem__)
    else:
        shown = [_against(best, entry) for entry in found if best in (entry["a"], entry["b"])]
        beaten = sum(map(established, shown))
        title = f"{labels[best]} beats {beaten} of the {len(shown)} others"
        rest = ""
        if beaten < len(shown):
            rest = f", and cannot be told apart from the other {len(shown) - beaten}"
        words = (
            Text(
                f"**{labels[best]}** has the lowest mean. It beats {beaten} of the {len(shown)} "
                f"others{rest}. Of all {len(found)} pairs of variants, {told} can be told apart."
            ),
            Details("In words", (Bullets(_in_words(shown, labels)),)),
        )
        names = [labels[entry["a"]] for entry in shown]
        xlabel = f"test error minus that of {labels[best]} (points)"
    rows = [
        figures.Difference(name, entry["difference"], pair(entry["ci95"]), established(entry))
        for name, entry in zip(names, shown, strict=True)
        if entry["difference"] is not None
    ]
    drawn: list[Block] = []
    if rows:
        drawn.append(
            plot(
                "comparisons",
                figures.differences(rows, title=title, xlabel=xlabel),
                f"Differences between variants and their intervals. {title}.",
                "Mean difference over the seeds that both variants have, with its 95 % interval "
                "(not corrected for the number of pairs). Filled: p below 0.05 after Holm's "
                "correction.",
            )
        )
    table = Table(
        ("variant", "against", *STATISTICS),
        tuple((labels[entry["a"]], labels[entry["b"]], *cells(entry)) for entry in found),
    )
    return Section(
        "What the data support",
        (*words, *drawn, Text(how(found)), _folded(table, "Every pair")),
    )


def effects(run: Run) -> Section | None:
    """Main effects of the swept factors and their interactions."""
    found = run.summary.get("effects") or []
    if len({factor for effect in found for factor in effect["factors"]}) < 2:
        return None
    mains = [effect for effect in found if effect["kind"] == "main"]
    crossed = [effect for effect in found if effect["kind"] == "interaction"]
    told = [effect for effect in mains if established(effect)]
    said = [*mains, *crossed]
    if len(said) > MAX_SENTENCES:
        said = [effect for effect in said if established(effect)] or mains
    title = _effects_title(told)
    left_out = max(effect.get("dropped") or 0 for effect in found)
    drawn = [effect for effect in found if effect["difference"] is not None][: 2 * MAX_ROWS]
    blocks: list[Block] = [
        Text(
            "A main effect is the mean difference in test error between two values of one factor, "
            "over all combinations of the others; an interaction is how much such a difference "
            "changes with another factor."
        ),
        Bullets(tuple(_averaged(effect, run.factors) for effect in said)),
    ]
    if drawn:
        rows = [
            figures.Difference(
                _label(effect), effect["difference"], pair(effect["ci95"]), established(effect)
            )
            for effect in drawn
        ]
        blocks.append(
            plot(
                "effects",
                figures.differences(rows, title=title, xlabel="effect on the test error (points)"),
                f"Main effects and interactions with their intervals. {title}.",
                "Mean over seeds with its 95 % interval; left of the line the error is lower. "
                "Filled: p below 0.05 after Holm's correction.",
            )
        )
    if left_out:
        blocks.append(
            Text(
                f"{plural(left_out, 'seed')} without a result in every combination "
                f"{'is' if left_out == 1 else 'are'} left out here."
            )
        )
    table = Table(
        ("effect", *STATISTICS),
        tuple((_label(effect).replace("\n", " "), *cells(effect)) for effect in found),
    )
    return Section("What each factor does", (*blocks, Text(how(found)), _folded(table, "Effects")))


def _effects_title(told: Sequence[Fields]) -> str:
    if not told:
        return "No factor has an established effect"
    if len(told) <= 2:
        findings = []
        for effect in told:
            ends = (_phrases(effect, "levels")[0], _phrases(effect, "reference")[0])
            better, worse = ends[::-1] if effect["difference"] > 0 else ends
            by = points(abs(effect["difference"]))
            findings.append(f"{better} beats {worse} by {by} points")
        return ", and ".join(findings)
    factors = list(dict.fromkeys(_word(effect["factors"][0]) for effect in told))
    title = f"{_joined(factors)} make{'s' if len(factors) == 1 else ''} a difference"
    return title[0].upper() + title[1:]


def comparison_title(entry: Fields, names: Callable[[str], str]) -> str:
    """A comparison's finding in a few words."""
    a, b = names(entry["a"]), names(entry["b"])
    if not established(entry):
        return f"{a} and {b} cannot be told apart"
    better, worse = (b, a) if entry["difference"] > 0 else (a, b)
    return f"{better} beats {worse} by {points(abs(entry['difference']))} points"


def _sentence(entry: Fields, a: str, b: str) -> str:
    difference = entry["difference"]
    if difference is None:
        return f"**{a}** and **{b}** cannot be compared: no seed has a result in both."
    left_out = entry.get("dropped") or 0
    dropped = (
        f"; {plural(left_out, 'seed')} without a result on both sides left out" if left_out else ""
    )
    if established(entry):
        better, worse = (b, a) if difference > 0 else (a, b)
        low, high = sorted(abs(bound) for bound in entry["ci95"])
        return (
            f"**{better}** beats **{worse}** by {points(abs(difference))} points "
            f"({points(low)} to {points(high)}, {_p(entry)}, n = {entry['n']}{dropped})."
        )
    if difference < 0:
        a, b = b, a
    reason = _no_test(entry)
    if reason is None:
        turned = entry["ci95"] if difference >= 0 else [-entry["ci95"][1], -entry["ci95"][0]]
        reason = (
            f"difference {points(abs(difference))} points, interval {span(turned)}{_despite(entry)}"
        )
    return f"**{a}** and **{b}** cannot be told apart with n = {entry['n']}: {reason}{dropped}."


def _no_test(entry: Fields) -> str | None:
    if entry["ci95"] is not None:
        return None
    if entry["difference"] is None:
        return "no seed has a result in every combination"
    if entry["n"] < 2:
        return f"difference {points(abs(entry['difference']))} points, with no interval"
    return (
        f"difference {points(abs(entry['difference']))} points with every seed, and what does not "
        "vary cannot be tested"
    )


def _despite(entry: Fields) -> str:
    """Why an interval without 0 is no finding."""
    low, high = entry["ci95"]
    if low * high <= 0:
        return ""
    return f", which leaves out 0, but not after the correction for all tests ({_p(entry)})"


def _p(entry: Fields) -> str:
    shown = p_text(entry.get("p_value_holm", entry["p_value"]))
    name = "Holm p" if "p_value_holm" in entry else "p"
    return f"{name} {shown}" if shown.startswith("<") else f"{name} = {shown}"


def cells(entry: Fields) -> tuple[str, ...]:
    """A comparison in numbers, under STATISTICS."""
    return (
        points(entry["difference"]),
        span(entry["ci95"]),
        p_text(entry["p_value"]),
        p_text(entry.get("p_value_holm")),
        str(entry["n"]),
        str(entry.get("dropped") or 0),
    )


def _in_words(shown: Sequence[Fields], labels: Mapping[str, str]) -> tuple[str, ...]:
    ordered = sorted(shown, key=lambda entry: not established(entry))
    return tuple(comparison_sentence(entry, labels.__getitem__) for entry in ordered)


def _best(run: Run) -> str:
    finished = [v for v in run.summary["variants"] if v["test_error_mean"] is not None]
    best = min(finished, key=lambda v: v["test_error_mean"], default=run.summary["variants"][0])
    return str(best["name"])


def _against(variant: str, entry: Fields) -> Fields:
    """A comparison turned round, if need be, so that this variant is what is subtracted."""
    if entry["b"] == variant:
        return entry
    turned = None if entry["ci95"] is None else [-entry["ci95"][1], -entry["ci95"][0]]
    difference = None if entry["difference"] is None else -entry["difference"]
    return {**entry, "a": entry["b"], "b": variant, "difference": difference, "ci95": turned}


def _averaged(effect: Fields, factors: Fields) -> str:
    sentence = effect_sentence(effect)
    others = [_word(factor) for factor in factors if factor not in effect["factors"]]
    if effect["kind"] != "main" or not others:
        return sentence
    return f"Averaged over {_joined(others)}, {sentence}"


def _label(effect: Fields) -> str:
    levels, before = _phrases(effect, "levels"), _phrases(effect, "reference")
    if effect["kind"] == "main":
        return f"{levels[0]}\nvs {before[0]}"
    return f"({levels[0]} vs {before[0]})\nx ({levels[1]} vs {before[1]})"


def _phrases(effect: Fields, which: str) -> list[str]:
    return [phrase(f, value) for f, value in zip(effect["factors"], effect[which], strict=True)]


def how(found: Sequence[Fields]) -> str:
    """How these comparisons were made."""
    count = sum(entry["p_value"] is not None for entry in found)
    return (
        "Paired t tests over seeds: the same seed gives the same order of the images, so each seed "
        "is compared with itself. P-values are corrected by Holm's method for "
        f"{plural(count, 'test')} made here. {NOT_EQUAL}"
    )


def _folded(table: Table, summary: str) -> Block:
    return Details(f"{summary}, in numbers", (table,))


def _word(field: str) -> str:
    return field.replace("_", " ")


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
