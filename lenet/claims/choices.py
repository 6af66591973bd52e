"""tanh in the paper, ReLU today; max or average pooling: quoted from the full ablation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lenet import figures, statistics
from lenet.claims import rules
from lenet.claims.claim import Claim, Context, Finding
from lenet.templates.document import Block, Notice, Table, plot
from lenet.templates.run import percent, points, span

STUDY = "ablation_full"
ACTIVATIONS, POOLINGS = ("tanh", "relu"), ("max", "average")

Summary = Mapping[str, Any]


def _errors(summary: Summary, activation: str, pooling: str) -> dict[int, float]:
    return {
        trial["seed"]: trial["test_error"]
        for trial in summary["trials"]
        if (trial["overrides"]["activation"], trial["overrides"]["pooling"])
        == (activation, pooling)
        and trial["status"] == "done"
    }


def effects(summary: Summary) -> list[dict[str, Any]]:
    """Main effects and interaction of tanh or ReLU, max or average, paired over seeds."""
    return statistics.factor_effects(
        [
            ({"activation": activation, "pooling": pooling}, seed, error)
            for activation in ACTIVATIONS
            for pooling in POOLINGS
            for seed, error in _errors(summary, activation, pooling).items()
        ]
    )


def examine(context: Context) -> tuple[Finding, ...]:
    """The verdict of the committed ablation on its four corners."""
    path = context.results / STUDY / "summary.json"
    summary = _read(path)
    by_kind = {tuple(effect["factors"]): effect for effect in effects(summary)}
    activation = by_kind[("activation",)]
    pooling = by_kind[("pooling",)]
    both = by_kind[("activation", "pooling")]
    rows = [
        figures.Difference(
            label, effect["difference"], tuple(effect["ci95"]), verdict != rules.UNDECIDED
        )
        for label, effect in (
            ("ReLU minus tanh", activation),
            ("average minus max", pooling),
            ("their interaction", both),
        )
        if effect["ci95"]
        for verdict in [rules.below(effect["ci95"])]
    ]
    title = f"ReLU changes the error by {points(activation['difference'])} points"
    picture = plot(
        "choices-effects",
        figures.differences(rows, title=title, xlabel="effect on the test error (points)"),
        title,
        "Main effects are means over the other factor; the interaction is how much the effect of "
        "average pooling with ReLU differs from that with tanh.",
    )
    alone = {
        activation: statistics.paired_comparison(
            *_paired(_errors(summary, activation, "max"), _errors(summary, activation, "average"))
        )
        for activation in ACTIVATIONS
    }
    return (
        Finding(
            "ReLU, today's choice, has a lower test error than tanh, the paper's.",
            "Supported if the 95 % interval of the main effect, ReLU minus tanh over max and "
            "average pooling, paired over seeds, lies below 0.",
            rules.below(activation["ci95"]),
            f"{points(activation['difference'])} points ({span(activation['ci95'])}), "
            f"n = {activation['n']} seeds, each variant at its own rate.",
            (picture, _table(summary), *_smaller(context)),
        ),
        Finding(
            "Max pooling has a lower test error than average pooling.",
            "The note names both and prefers none; today max is usual. Supported if the interval "
            "of max minus average lies below 0 with tanh and with ReLU, refuted if it lies above 0 "
            "with either.",
            rules.all_of(rules.below(each.ci95) for each in alone.values()),
            "; ".join(
                f"with {'ReLU' if name == 'relu' else name} "
                f"{points(each.difference)} points ({span(each.ci95)})"
                for name, each in alone.items()
            )
            + f". The interaction is {points(both['difference'])} points ({span(both['ci95'])}).",
        ),
    )


def _read(path: Path) -> Summary:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; run: python main.py --config=configs/{STUDY}.py, and put its "
            "summary.json there"
        )
    found: Summary = json.loads(path.read_text())
    return found


def _paired(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[list[float], list[float]]:
    seeds = sorted(a.keys() & b.keys())
    return [a[seed] for seed in seeds], [b[seed] for seed in seeds]


def _table(summary: Summary) -> Block:
    rows: list[Sequence[str]] = []
    for entry in summary["variants"]:
        rows.append(
            (
                entry["name"].replace("activation=", "").replace(",pooling=", " + "),
                percent(entry["test_error_mean"]),
                span(entry["test_error_ci95"]),
                str(entry["n"]),
            )
        )
    header = ("activation + pooling", "mean test error", "95 % interval, points", "n")
    return Table(header, tuple(tuple(row) for row in rows))


def _smaller(context: Context) -> tuple[Block, ...]:
    """The same effects in the smaller ablation, which has more seeds."""
    path = context.results / "ablation" / "summary.json"
    if not path.is_file():
        return ()
    told = "; ".join(
        f"{' x '.join(effect['factors'])} {points(effect['difference'])} ({span(effect['ci95'])}, "
        f"n = {effect['n']})"
        for effect in effects(_read(path))
    )
    return (
        Notice(
            "The ablation of these four variants alone, with more seeds, says (points; activation "
            f"is ReLU minus tanh, pooling average minus max): {told}."
        ),
    )


CLAIM = Claim(
    name="choices",
    title="tanh then, ReLU now; max or average pooling",
    statement="The paper's activation is tanh; implementations of today have ReLU. Pooling keeps "
    "the greatest value of a window or the mean.",
    original="「论文中采用的激活函数为 tanh，目前主流实现中的激活函数都是 ReLU」",
    method="Quoted from `configs/ablation_full.py`, whose results are committed: four activations "
    "and four poolings, each with its learning rate chosen on validation images. The effects are "
    "those of tanh and ReLU, max and average pooling.",
    examine=examine,
)
