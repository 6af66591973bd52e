"""ReLU is easier to train than tanh; sigmoid saturates and loses information on the way back."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lenet import data, figures, statistics, sweep
from lenet.claims import evidence, rules
from lenet.claims.claim import Claim, Context, Finding, Studies
from lenet.claims.evidence import compare, in_numbers, in_points, interval_of, paired
from lenet.claims.tracing import FLAT, Trace, trace
from lenet.templates.document import Block, Plot, Row, Table, Text, plot
from lenet.templates.run import percent, plural

ACTIVATIONS = ("relu", "tanh", "sigmoid")
DEPTHS = {"LeNet": 0, "three layers deeper": 3}
TARGET = 0.02
# What is looked at, and how often: training images, and steps from one look to the next.
EXAMPLES, EVERY = 1000, 40
NAMES = {"relu": "ReLU", "tanh": "tanh", "sigmoid": "sigmoid"}


def studies(context: Context) -> Studies:
    """Three activations in two depths, each with its own rate."""
    quick = context.quick
    return {
        "activations": context.study(
            pooling="average",
            variants={
                _variant(activation, depth): {"activation": activation, "extra_layers": layers}
                for depth, layers in DEPTHS.items()
                for activation in ACTIVATIONS
            },
            sweep={
                "learning_rate": (2e-3,) if quick else (1e-3, 2e-3, 4e-3, 8e-3),
                "seed": (0, 1) if quick else (0, 1, 2, 3, 4, 5),
            },
            tune=("learning_rate",),
            tune_seeds=(1000,),
            validation_examples=500 if quick else 10_000,
            num_epochs=1 if quick else 3,
        )
    }


def _variant(activation: str, depth: str) -> str:
    return f"{NAMES[activation]}, {depth}"


def traces(context: Context) -> dict[str, Trace]:
    """The same trainings again, with a look inside every so many steps."""
    config = studies(context)["activations"]
    plan = sweep.plan(config, "activations")
    chosen = {
        entry["name"]: entry["tuned"] for entry in context.run("activations").summary["variants"]
    }
    dataset = data.load(config.dataset, config.data_dir or None)
    found = {}
    for group in sweep.populations(plan.final(chosen)):
        found[group[0].variant] = trace(
            group,
            dataset,
            every=8 if context.quick else EVERY,
            examples=256 if context.quick else EXAMPLES,
            last=24 if context.quick else 10**9,
        )
    return found


def examine(context: Context) -> tuple[Finding, ...]:
    """Speed, error, gradients and saturation, paired over seeds."""
    run, found = context.run("activations"), traces(context)
    plain, deep = DEPTHS
    speed = {
        depth: _log_ratio(
            found[_variant("tanh", depth)].steps_to(TARGET),
            found[_variant("relu", depth)].steps_to(TARGET),
        )
        for depth in DEPTHS
    }
    final = {
        depth: compare(run, _variant("relu", depth), _variant("tanh", depth)) for depth in DEPTHS
    }
    flow = {
        (activation, depth): _flow(found[_variant(activation, depth)])
        for activation in ACTIVATIONS
        for depth in DEPTHS
    }
    lost = {depth: paired(flow["sigmoid", depth], flow["tanh", depth]) for depth in DEPTHS}
    growth = statistics.paired_comparison(
        list(_differences(speed_of(found, deep)).values()),
        list(_differences(speed_of(found, plain)).values()),
    )
    return (
        Finding(
            f"ReLU reaches {percent(TARGET, 0)} training error in fewer steps than tanh.",
            "Supported if, in the LeNet, the 95 % interval of the logarithm of the ratio of steps, "
            "tanh to ReLU, paired over seeds and each at its own best rate, lies above 0. A seed "
            "that never gets there counts as twice the steps of the whole training.",
            rules.above(interval_of(speed[plain])) if _reached(found) else rules.UNDECIDED,
            f"tanh needs {_factor(speed[plain])} the steps of ReLU in the LeNet, and "
            f"{_factor(speed[deep])} in the deeper network. {_steps_told(found)}",
            (_error_curves(found, speed),),
        ),
        Finding(
            "ReLU ends with a lower test error than tanh.",
            "Supported if the interval of the paired difference, ReLU minus tanh, lies below 0.",
            rules.below(interval_of(final[plain])),
            f"The difference is {in_points(final[plain])} points in the LeNet and "
            f"{in_points(final[deep])} in the deeper network, after "
            f"{plural(run.config['num_epochs'], 'epoch')} with average pooling.",
            (_errors(context),),
        ),
        Finding(
            "Sigmoid loses the gradient on its way back to the first layer.",
            "The flow of a network is the gradient of c1's weights over that of the output's, root "
            "mean squares, its median over the training on a scale of powers of ten. Supported if "
            "the interval of the difference, sigmoid minus tanh, lies below 0 in the LeNet.",
            rules.below(interval_of(lost[plain])),
            f"Powers of ten: {in_numbers(lost[plain])} in the LeNet, {in_numbers(lost[deep])} in "
            "the deeper network.",
            (
                _gradient_curves(found, flow),
                Text(
                    "The gradient's root mean square by layer, the median over the training, mean "
                    "over seeds:"
                ),
                _by_layer(found, lambda traced: _medians(traced.gradient), "{:.1e}".format),
            ),
        ),
        Finding(
            "Sigmoid saturates more than tanh.",
            f"A unit is saturated where the slope of its activation is below {percent(FLAT, 0)} of "
            "its greatest. Supported if the interval of the difference of the shares in f6, "
            "sigmoid minus tanh, at the end of the training, lies above 0.",
            rules.above(interval_of(_saturation(found, "sigmoid", "tanh", plain))),
            _saturated_told(found, plain),
            (
                _saturation_curves(found),
                Text("The share of flat units by layer at the end, mean over seeds:"),
                _by_layer(
                    found,
                    lambda traced: {
                        layer: float(shares[:, -1].mean())
                        for layer, shares in traced.saturated.items()
                    },
                    lambda share: percent(share, 1),
                ),
            ),
        ),
        Finding(
            "The advantage of ReLU grows with depth.",
            "Supported if the interval of the difference of the logarithms of the ratio of steps, "
            "deeper minus LeNet, lies above 0.",
            rules.above(interval_of(growth)),
            f"The ratio, tanh to ReLU, changes by a factor of {_factor(growth)} with three more "
            "layers.",
        ),
    )


def speed_of(found: Mapping[str, Trace], depth: str) -> tuple[dict[int, int], dict[int, int]]:
    """Steps to the target of each seed: with tanh, with ReLU."""
    return (
        found[_variant("tanh", depth)].steps_to(TARGET),
        found[_variant("relu", depth)].steps_to(TARGET),
    )


def _differences(steps: tuple[dict[int, int], dict[int, int]]) -> dict[int, float]:
    tanh, relu = steps
    return {seed: math.log(max(tanh[seed], 1) / max(relu[seed], 1)) for seed in tanh}


def _log_ratio(a: Mapping[int, int], b: Mapping[int, int]) -> statistics.Comparison:
    logarithms = [{seed: math.log(max(n, 1)) for seed, n in each.items()} for each in (a, b)]
    return paired(*logarithms)


def _factor(compared: statistics.Comparison) -> str:
    """A difference of logarithms as a factor: `1.40 (1.30 to 1.51, n = 6)`."""
    if compared.difference is None:
        return "unknown"
    told, interval = f"{math.exp(compared.difference):.2f}", interval_of(compared)
    if interval is None:
        return told
    low, high = map(math.exp, interval)
    return f"{told} ({low:.2f} to {high:.2f}, n = {compared.n})"


def _flow(traced: Trace) -> dict[int, float]:
    """The logarithm, base ten, of the gradient at c1 over that at the output: median over steps."""
    first, last = traced.gradient["c1"], traced.gradient["output"]
    ratio = np.log10(np.maximum(first, 1e-30) / np.maximum(last, 1e-30))
    return dict(zip(traced.seeds, map(float, np.median(ratio, axis=1)), strict=True))


def _saturation(found: Mapping[str, Trace], a: str, b: str, depth: str) -> statistics.Comparison:
    at_end = [found[_variant(each, depth)].saturated["f6"][:, -1] for each in (a, b)]
    return statistics.paired_comparison(*(list(map(float, each)) for each in at_end))


def _flat_at_end(found: Mapping[str, Trace], depth: str) -> str:
    shares = {
        NAMES[each]: float(found[_variant(each, depth)].saturated["f6"][:, -1].mean())
        for each in ACTIVATIONS
    }
    return ", ".join(f"{name} {percent(share, 0)}" for name, share in shares.items())


def _saturated_told(found: Mapping[str, Trace], depth: str) -> str:
    return (
        f"Shares of flat units in f6 at the end: {_flat_at_end(found, depth)}; sigmoid minus tanh "
        f"{in_points(_saturation(found, 'sigmoid', 'tanh', depth))} points. A ReLU is flat where "
        "it is off: that is how it is sparse, and its gradient is whole where it is on."
    )


def _steps_told(found: Mapping[str, Trace]) -> str:
    told = []
    for activation in ACTIVATIONS:
        traced = found[_variant(activation, next(iter(DEPTHS)))]
        steps = list(traced.steps_to(TARGET).values())
        never = sum(each > traced.steps[-1] for each in steps)
        name = NAMES[activation]
        told.append(
            f"{name} {np.median(steps):.0f}" if not never else f"{name} not with {never} seeds"
        )
    return f"Steps in the LeNet, medians: {', '.join(told)}."


def _reached(found: Mapping[str, Trace]) -> bool:
    """Whether any seed with ReLU or tanh comes to the target."""
    return any(
        bool((found[_variant(each, next(iter(DEPTHS)))].error <= TARGET).any())
        for each in ("relu", "tanh")
    )


def _mean_curve(label: str, traced: Trace, values: np.ndarray) -> figures.Curve:
    return figures.Curve(label, traced.steps, values.mean(0), values.min(0), values.max(0))


def _medians(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of values "member step" by layer, the median over steps, mean over members."""
    return {layer: float(np.median(each, axis=1).mean()) for layer, each in values.items()}


def _by_layer(
    found: Mapping[str, Trace],
    values: Callable[[Trace], Mapping[str, float]],
    told: Callable[[float], str],
) -> Table:
    rows = []
    for depth in DEPTHS:
        by_activation = [values(found[_variant(each, depth)]) for each in ACTIVATIONS]
        # In the order in which they compute, which their names are sorted by.
        for layer in sorted(by_activation[0]):
            rows.append((depth, layer, *(told(each[layer]) for each in by_activation)))
    return Table(("network", "layer", *(NAMES[each] for each in ACTIVATIONS)), tuple(rows))


def _drawn(
    name: str,
    found: Mapping[str, Trace],
    values: Callable[[Trace], np.ndarray],
    titles: Mapping[str, str],
    alternative: str,
    **choices: Any,
) -> Block:
    """A figure a depth, of one curve an activation; the titles say what is to be seen."""
    return Row(
        tuple(
            plot(
                f"{name}-{layers}",
                figures.learning_curves(
                    [
                        _mean_curve(NAMES[each], traced, values(traced))
                        for each in ACTIVATIONS
                        for traced in [found[_variant(each, depth)]]
                    ],
                    title=f"{depth[0].upper()}{depth[1:]}: {titles[depth]}",
                    xlabel="steps",
                    **choices,
                ),
                f"{alternative}, {depth}",
                "Mean over seeds, bands from the least to the greatest.",
            )
            for depth, layers in DEPTHS.items()
        )
    )


def _error_curves(found: Mapping[str, Trace], speed: Mapping[str, statistics.Comparison]) -> Block:
    return _drawn(
        "activations-training",
        found,
        lambda traced: np.maximum(traced.error, 1e-4),
        {
            depth: f"{math.exp(each.difference or 0):.1f} times the steps with tanh"
            for depth, each in speed.items()
        },
        "Training error against steps by activation",
        ylabel=f"error on {EXAMPLES:,} training images",
        percent=True,
        references={f"{percent(TARGET, 0)}": TARGET},
    )


def _gradient_curves(
    found: Mapping[str, Trace], flow: Mapping[tuple[str, str], Mapping[int, float]]
) -> Block:
    def share(depth: str) -> str:
        lost = paired(flow["sigmoid", depth], flow["tanh", depth]).difference or 0
        return f"sigmoid's is {10**lost:.2f} of tanh's"

    return _drawn(
        "activations-gradient",
        found,
        lambda traced: (
            np.maximum(traced.gradient["c1"], 1e-30) / np.maximum(traced.gradient["output"], 1e-30)
        ),
        {depth: share(depth) for depth in DEPTHS},
        "Gradient at c1 over that at the output against steps by activation",
        ylabel="gradient, c1 over output",
    )


def _saturation_curves(found: Mapping[str, Trace]) -> Block:
    return _drawn(
        "activations-saturated",
        found,
        lambda traced: traced.saturated["f6"],
        {depth: f"at last {_flat_at_end(found, depth)}" for depth in DEPTHS},
        "Flat units in f6 against steps by activation",
        ylabel="flat units in f6",
        percent=True,
        linear=True,
    )


def _errors(context: Context) -> Plot:
    run = context.run("activations")
    plain = next(iter(DEPTHS))
    means = {
        NAMES[each]: evidence.mean_of(evidence.errors_of(run, _variant(each, plain)))
        for each in ACTIVATIONS
    }
    told = ", ".join(f"{name} {percent(mean)}" for name, mean in means.items())
    return evidence.errors_plot(
        "activations-errors",
        run,
        title=f"In the LeNet {told}",
        caption="Each at its own rate; every seed a dot, the mean and its 95 % interval beside "
        "them.",
    )


CLAIM = Claim(
    name="activations",
    title="ReLU is easier to train; sigmoid saturates",
    statement="ReLU is easier to optimise, because it is linear in pieces, forwards and backwards; "
    "the traditional sigmoid is flat at both ends and easily loses information on the way.",
    original="「ReLU更容易学习优化，因为其分段线性的性质，导致其前传，后传，求导都是分段线性。"
    "而传统的 sigmoid 函数，由于两端饱和，在传播过程中容易丢弃信息。」",
    method="LeNets with average pooling (with max pooling, sigmoid often does not learn at all) "
    "and ReLU, tanh or sigmoid, and the same with three more hidden layers of 84 units. Each has "
    "its learning rate chosen on validation images; then the chosen trainings are gone through "
    f"again with a look at {EXAMPLES:,} training images every {EVERY} steps: error, gradients, "
    "flat units.",
    examine=examine,
    studies=studies,
)
