"""Pooling cuts compute, memory and parameters, widens the receptive field, adds invariance."""

import math
import statistics as stdlib
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from lenet import data, figures, memory, predict, statistics
from lenet import model as models
from lenet.checkpoints import Trained
from lenet.claims import evidence, rules
from lenet.claims.claim import Claim, Context, Finding, Studies
from lenet.claims.evidence import in_numbers, in_points, interval_of, paired
from lenet.layers import COMPILER_OPTIONS
from lenet.model import LeNet, ModelSummary
from lenet.optimizers import Hyperparameters
from lenet.templates.document import Block, Row, Table, plot
from lenet.templates.run import Run, percent
from lenet.train import create_train_state, train_step

POOLINGS = ("max", "average", "subsampling", "stride", "none")
NAMES = {"stride": "strided", "none": "no pooling"}
TRAINED = {"as they are": "none", "shifted": "distortions"}
FARTHEST = 6
SHAPE = (32, 32, 1)
BATCH = 128
# Of the greatest, what a pixel's mean gradient must reach to count as seen (Luo et al. 2016).
SEEN = 0.0455

Costs = Mapping[str, Mapping[str, list[float]]]


def studies(context: Context) -> Studies:
    """Five poolings, on images as they are and on shifted ones, each with its own rate."""
    quick = context.quick
    poolings = ("max", "average", "none") if quick else POOLINGS
    return {
        "pooling": context.study(
            variants={
                _variant(pooling, trained): {
                    "pooling": pooling,
                    "augmentation": augmentation,
                    "translation": float(FARTHEST),
                    "scaling": 0.0,
                    "squeezing": 0.0,
                    "shear": 0.0,
                }
                for trained, augmentation in TRAINED.items()
                for pooling in poolings
                if not quick or augmentation == "none"
            },
            sweep={
                "learning_rate": (2e-3,) if quick else (1e-3, 2e-3, 4e-3, 8e-3),
                "seed": (0, 1) if quick else (0, 1, 2, 3),
            },
            tune=("learning_rate",),
            tune_seeds=(1000,),
            train_examples=1000 if quick else 20_000,
            validation_examples=500 if quick else 10_000,
            num_epochs=1 if quick else 3,
        )
    }


def _variant(pooling: str, trained: str) -> str:
    return f"{NAMES.get(pooling, pooling)}, {trained}"


def shifted(
    images: UInt8[np.ndarray, "image height width channel"], down: int, right: int
) -> UInt8[np.ndarray, "image height width channel"]:
    """Images moved by whole pixels; what comes in is zero, what goes out is lost."""
    height, width = images.shape[1:3]
    moved = np.zeros_like(images)
    moved[:, max(down, 0) : height + down, max(right, 0) : width + right] = images[
        :, max(-down, 0) : height - down, max(-right, 0) : width - right
    ]
    return moved


def directions(distance: int) -> list[tuple[int, int]]:
    """The eight shifts by a distance along one axis or both; the one of distance 0 is one."""
    steps = (-distance, 0, distance)
    return sorted(
        {(down, right) for down in steps for right in steps if (down, right) != (0, 0)} or {(0, 0)}
    )


def under_shifts(
    trained: Trained, dataset: data.Dataset, count: int
) -> tuple[Float[np.ndarray, " distance"], Float[np.ndarray, " distance"]]:
    """The error, and the share of unchanged predictions, of shifts by 0 to FARTHEST pixels.

    Of each distance the mean over `directions` and the first `count` test images.
    """
    images = data.pad(dataset.test_images[:count])
    labels = dataset.test_labels[:count]
    unmoved, _ = predict.classify(trained, images)
    errors, same = [], []
    for distance in range(FARTHEST + 1):
        moved = [shifted(images, *each) for each in directions(distance)]
        found, _ = predict.classify(trained, np.concatenate(moved))
        each = found.reshape(len(moved), -1)
        errors.append(float((each != labels).mean()))
        same.append(float((each == unmoved).mean()))
    return np.array(errors), np.array(same)


def effective_field(
    trained: Trained, images: Float[np.ndarray, "image height width channel"]
) -> Float[np.ndarray, "height width"]:
    """How much each pixel moves the unit of s4 in the middle: mean size of the gradient.

    Means over the maps of s4 and over the images; 1 is the greatest.
    """

    def middle(image: jax.Array) -> jax.Array:
        _, captured = trained.model.apply(
            {"params": trained.params},
            image[None],
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        maps = captured["intermediates"]["s4"]["__call__"][0][..., 0]
        return maps[:, maps.shape[1] // 2, maps.shape[2] // 2]

    gradients = jax.lax.map(jax.jacrev(middle), jnp.asarray(images))
    found = np.asarray(jnp.abs(gradients).mean(axis=(0, 1, 4)))
    return found / max(found.max(), 1e-30)


def side(field: Float[np.ndarray, "height width"]) -> float:
    """The side in pixels of a square as large as the part of a field that is seen (`SEEN`)."""
    return math.sqrt(float((field > SEEN).sum()))


def costs(poolings: tuple[str, ...], rounds: int, steps: int) -> tuple[Costs, dict[str, int]]:
    """Microseconds an image of training steps, round by round, and the bytes that a step takes.

    The networks take turns within a round, so that what else the machine does meets them all.
    """
    ready = {}
    needed = {}
    for pooling in poolings:
        state = create_train_state(jax.random.key(0), LeNet(pooling=pooling), SHAPE)
        batch = {
            "image": jax.random.uniform(jax.random.key(1), (BATCH, *SHAPE)),
            "label": jnp.arange(BATCH) % 10,
        }
        lowered = jax.jit(train_step).lower(state, batch, Hyperparameters())
        compiled = lowered.compile(COMPILER_OPTIONS)
        jax.block_until_ready(compiled(state, batch, Hyperparameters()))
        needed[pooling] = memory.working_bytes(compiled)
        ready[pooling] = (compiled, state, batch)
    times: dict[str, list[float]] = {pooling: [] for pooling in poolings}
    for _ in range(rounds):
        for pooling, (compiled, state, batch) in ready.items():
            began = time.perf_counter()
            for _ in range(steps):
                state, _ = compiled(state, batch, Hyperparameters())
            jax.block_until_ready(state)
            times[pooling].append(1e6 * (time.perf_counter() - began) / (steps * BATCH))
    return {"microseconds": times}, needed


def examine(context: Context) -> tuple[Finding, ...]:
    """What pooling costs and gives, against the same network without it."""
    run = context.run("pooling")
    trained = context.trained("pooling")
    dataset = data.load(run.config["dataset"], run.config["data_dir"] or None)
    count = 200 if context.quick else 1000
    seen: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    fields: dict[str, dict[int, np.ndarray]] = {}
    for each in trained:
        images = np.asarray(each.shown(dataset.test_images[: 20 if context.quick else 100]))
        seed = int(each.config.seed)
        seen.setdefault(each.variant, {})[seed] = under_shifts(each, dataset, count)
        fields.setdefault(each.variant, {})[seed] = effective_field(each, images)
    poolings = tuple(pooling for pooling in POOLINGS if _variant(pooling, "as they are") in seen)
    timed, needed = costs(poolings, *((2, 2) if context.quick else (12, 10)))
    counted = {each: models.summarize(LeNet(pooling=each), SHAPE) for each in poolings}
    return (
        *_cheaper(poolings, counted, timed["microseconds"], needed),
        _wider(poolings, counted, fields),
        *_invariant(context, poolings, seen),
    )


def _cheaper(
    poolings: tuple[str, ...],
    counted: Mapping[str, ModelSummary],
    times: Mapping[str, list[float]],
    needed: Mapping[str, int],
) -> tuple[Finding, ...]:
    pooled = [each for each in poolings if each != "none"]
    whole = counted["none"]
    slower = {
        each: statistics.paired_comparison(
            [math.log(time) for time in times["none"]], [math.log(time) for time in times[each]]
        )
        for each in pooled
    }
    table = Table(
        (
            "pooling",
            "multiply-adds",
            "parameters",
            "activations",
            "MiB a step",
            "µs an image",
        ),
        tuple(
            (
                NAMES.get(each, each),
                f"{counted[each].multiply_adds:,}",
                f"{counted[each].parameters:,}",
                f"{_activations(counted[each]):,}",
                f"{needed[each] / 2**20:.1f}",
                f"{stdlib.median(times[each]):.1f}",
            )
            for each in poolings
        ),
    )
    most = max(pooled, key=lambda each: counted[each].multiply_adds)
    ratios = ", ".join(
        f"{NAMES.get(each, each)} {math.exp(found.difference or 0):.1f}"
        for each, found in slower.items()
    )
    return (
        Finding(
            "Pooling reduces the computation.",
            "Supported if every pooling needs fewer multiply-adds than the network without it, and "
            "for every pooling the interval of the logarithm of the measured ratio of times lies "
            "above 0 (rounds of training steps with batches of 128, in which the networks take "
            "turns).",
            rules.all_of(
                (
                    rules.exactly(counted[most].multiply_adds < whole.multiply_adds),
                    *(rules.above(interval_of(found)) for found in slower.values()),
                )
            ),
            f"{whole.multiply_adds / counted[most].multiply_adds:.1f} times as many multiply-adds "
            f"without pooling as with {NAMES.get(most, most)}; measured, times as long as with "
            f"{ratios}.",
            (table,),
        ),
        Finding(
            "Pooling reduces the memory.",
            "Supported if every pooling keeps fewer activations an image, and its training step "
            "needs fewer bytes by the compiler's count.",
            rules.exactly(
                all(
                    _activations(counted[each]) < _activations(whole)
                    and needed[each] < needed["none"]
                    for each in pooled
                )
            ),
            f"A step on {BATCH} images takes {needed['none'] / 2**20:.0f} MiB without pooling and "
            f"{min(needed[each] for each in pooled) / 2**20:.0f} to "
            f"{max(needed[each] for each in pooled) / 2**20:.0f} MiB with it.",
        ),
        Finding(
            "Pooling reduces the number of parameters.",
            "Supported if every pooling leaves fewer parameters. The pooling layers themselves "
            "have none or few: what shrinks is c5, which sees every pixel of s4.",
            rules.exactly(all(counted[each].parameters < whole.parameters for each in pooled)),
            f"{whole.parameters:,} without, {counted['max'].parameters:,} with max or average "
            "pooling.",
        ),
    )


def _activations(summary: ModelSummary) -> int:
    return sum(math.prod(layer.output_shape) for layer in summary.layers)


def _wider(
    poolings: tuple[str, ...],
    counted: Mapping[str, ModelSummary],
    fields: Mapping[str, Mapping[int, np.ndarray]],
) -> Finding:
    sides = {
        each: {seed: side(f) for seed, f in fields[_variant(each, "as they are")].items()}
        for each in poolings
    }
    gains = {each: paired(sides[each], sides["none"]) for each in poolings if each != "none"}
    theory = {
        each: next(
            layer.receptive_field
            for layer in reversed(counted[each].layers)
            if layer.name in ("c3", "s4")
        )
        for each in poolings
    }
    pictures = [
        np.mean(list(fields[_variant(each, "as they are")].values()), axis=0) for each in poolings
    ]
    captions = [
        f"{NAMES.get(each, each)}\n{theory[each]}, {np.mean(list(sides[each].values())):.1f}"
        for each in poolings
    ]
    drawn = figures.signed_images(
        np.stack(pictures),
        captions,
        title=f"Side of what a unit of s4 sees: {theory['max']} pixels, without {theory['none']}",
    )
    return Finding(
        "Pooling widens the receptive field.",
        "Supported if, for every pooling, the theoretical field of a unit of s4 is larger than "
        "without, and the interval of the gain in the side of the effective field, paired over "
        "seeds, lies above 0. The effective field is where the mean gradient of the middle unit by "
        f"the pixels is above {percent(SEEN, 1)} of its greatest.",
        rules.all_of(
            (
                rules.exactly(all(theory[each] > theory["none"] for each in gains)),
                *(rules.above(interval_of(gain)) for gain in gains.values()),
            )
        ),
        f"In theory {theory['max']} pixels a side against {theory['none']}. Gains of the effective "
        "side: "
        + ", ".join(
            f"{NAMES.get(each, each)} {in_numbers(gain, 1)}" for each, gain in gains.items()
        )
        + " pixels.",
        (
            plot(
                "pooling-fields",
                drawn,
                "Effective receptive fields of the middle unit of s4, by pooling",
                "Mean size of the gradient by each pixel, over maps, images and seeds; under each, "
                "the side of the theoretical and of the effective field in pixels.",
            ),
        ),
    )


def _invariant(
    context: Context,
    poolings: tuple[str, ...],
    seen: Mapping[str, Mapping[int, tuple[np.ndarray, np.ndarray]]],
) -> tuple[Finding, ...]:
    findings = []
    for trained in TRAINED:
        if _variant("none", trained) not in seen:
            continue
        means = {
            each: {
                seed: float(same[1:].mean())
                for seed, (_, same) in seen[_variant(each, trained)].items()
            }
            for each in poolings
        }
        gains = {each: paired(means[each], means["none"]) for each in poolings if each != "none"}
        told = ", ".join(
            f"{NAMES.get(each, each)} {in_points(gain)}" for each, gain in gains.items()
        )
        findings.append(
            Finding(
                "Pooling adds invariance to translation"
                f" (trained on images {'shifted at random' if trained == 'shifted' else trained}).",
                "The consistency is the share of predictions that a shift does not change, mean "
                f"over shifts of 1 to {FARTHEST} pixels along one axis or both. Supported if the "
                "interval of the gain over the network without pooling lies above 0 for both max "
                "and average pooling.",
                rules.all_of(rules.above(interval_of(gains[each])) for each in ("max", "average")),
                f"Without pooling {percent(float(np.mean(list(means['none'].values()))), 1)}; "
                f"gains in points: {told}.",
                (_shift_curves(trained, poolings, seen),),
            )
        )
    run = context.run("pooling")
    told = "; ".join(
        f"{trained}: {_least(run, trained)}"
        for trained in TRAINED
        if _variant("none", trained) in seen
    )
    table = evidence.errors_plot(
        "pooling-errors",
        run,
        title=f"The least error, trained {told}",
        caption="On test images as they are; every seed a dot, the mean and its 95 % interval.",
    )
    last = findings[-1]
    findings[-1] = Finding(
        last.statement, last.rule, last.verdict, last.evidence, (*last.blocks, table)
    )
    return tuple(findings)


def _least(run: Run, trained: str) -> str:
    means = {
        each: evidence.mean_of(errors)
        for each in POOLINGS
        if (errors := evidence.errors_of(run, _variant(each, trained)))
    }
    chosen = min(means, key=lambda each: means[each] or 0.0)
    return NAMES.get(chosen, chosen)


def _shift_curves(
    trained: str,
    poolings: tuple[str, ...],
    seen: Mapping[str, Mapping[int, tuple[np.ndarray, np.ndarray]]],
) -> Block:
    distances = np.arange(FARTHEST + 1)

    def curves(which: int) -> list[figures.Curve]:
        found = []
        for each in poolings:
            values = np.stack([both[which] for both in seen[_variant(each, trained)].values()])
            label = NAMES.get(each, each)
            found.append(
                figures.Curve(label, distances, values.mean(0), values.min(0), values.max(0))
            )
        return found

    def best(which: int) -> str:
        """The pooling that does best over all shifts, and what there is without any."""
        means = {
            each: float(
                np.mean([both[which][1:] for both in seen[_variant(each, trained)].values()])
            )
            for each in poolings
        }
        chosen = (max if which else min)(means, key=lambda each: means[each])
        told = f"{NAMES.get(chosen, chosen)} {percent(means[chosen], 0)}"
        return told if chosen == "none" else f"{told}, none {percent(means['none'], 0)}"

    how = "shifted images" if trained == "shifted" else "images as they are"
    name = "shifted" if trained == "shifted" else "unshifted"
    parts = (
        (0, "error", "test error"),
        (1, "consistency", "predictions that stay"),
    )
    return Row(
        tuple(
            plot(
                f"pooling-{what}-{name}",
                figures.learning_curves(
                    curves(which),
                    title=f"Trained {trained}: {best(which)}",
                    ylabel=ylabel,
                    xlabel="shift (pixels)",
                    percent=True,
                    linear=True,
                ),
                f"{ylabel} against the shift, trained on {how}",
                "Mean over seeds and eight directions, bands from the least seed to the greatest.",
            )
            for which, what, ylabel in parts
        )
    )


CLAIM = Claim(
    name="pooling",
    title="What pooling is good for",
    statement="Pooling reduces computation, memory and the number of parameters, widens the "
    "receptive field and adds invariance to translation.",
    original="「池化的作用是减小计算量，减小内存消耗，提高感受野的大小，减少参数数量，增加平移不变性。」",
    method="The same network with max, average, trained (subsampling) and strided pooling, and "
    "with pooling removed and everything else kept. Each has its learning rate chosen on "
    "validation images, and is trained on 20,000 images, as they are and shifted at random by up "
    "to 6 pixels along each axis, afresh each time. Test images are then shifted by 0 to 6 pixels, "
    "which hardly any digit leaves the image at.",
    examine=examine,
    studies=studies,
)
