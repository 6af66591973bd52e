"""Means with intervals, paired comparisons, and effects of the factors of a sweep.

Everything here is Student's t on one number a seed: seeds are independent, and the same seed in two
settings means the same order of the images, which is what a paired difference takes out.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float

PAIRED_T = "paired t over seeds"
# Differences whose spread is rounding error do not vary: their t would be anything.
ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How much greater `a` is than `b`.

    Attributes:
        difference: mean of a minus b; None without pairs.
        ci95: its 95 % interval; None with fewer than two pairs, or if no difference varies.
        p_value: of the hypothesis that the mean difference is 0, two-sided; None like `ci95`.
        n: how many pairs.
        method: the test, or why there is none.
    """

    difference: float | None
    ci95: tuple[float, float] | None
    p_value: float | None
    n: int
    method: str


@dataclasses.dataclass(frozen=True)
class Reached:
    """When an error was first at or below `target`: epochs and seconds, None if never."""

    target: float
    epoch: int | None
    seconds: float | None


def mean_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, tuple[float, float] | None]:
    """The mean of independent values and Student's t interval for it.

    The interval is mean +- t s / sqrt(n), with the t distribution's quantile for n - 1 degrees of
    freedom (Student 1908).

    Returns:
        The mean, and (low, high), or None where there are fewer than two values.

    Raises:
        ValueError: if there are no values.
    """
    if not values:
        raise ValueError("the mean of no values is not defined")
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    half = scipy.stats.sem(values) * scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    return mean, (mean - float(half), mean + float(half))


def paired_comparison(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Student's paired t test and interval of a[i] - b[i].

    With the mean m and the standard deviation s of n differences, t = m sqrt(n) / s has n - 1
    degrees of freedom if the true mean is 0 and the differences are normal (Student 1908).

    Args:
        a: one number a seed.
        b: those of the same seeds, in the same order.

    Raises:
        ValueError: if there are not as many numbers in a as in b.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values cannot be paired with {len(b)}")
    differences = np.asarray(a, float) - np.asarray(b, float)
    n = len(differences)
    if n < 2:
        alone = float(differences[0]) if n else None
        return Comparison(alone, None, None, n, "no test: fewer than two pairs")
    mean, interval = mean_interval(differences.tolist())
    scale = max(np.abs(a).max(), np.abs(b).max())
    if np.ptp(differences) <= ROUNDING * scale:
        return Comparison(mean, None, None, n, "no test: every pair differs by the same")
    p_value = float(scipy.stats.ttest_rel(a, b).pvalue)
    return Comparison(mean, interval, p_value, n, PAIRED_T)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted so that the chance of any false finding among them stays below the level.

    The k-th smallest of m is multiplied by m - k + 1, and none may be smaller than the one before
    it (Holm 1979, "A simple sequentially rejective multiple test procedure"). None, a test that
    could not be made, passes through and does not count.
    """
    known = sorted(
        (p_value, index) for index, p_value in enumerate(p_values) if p_value is not None
    )
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p_value, index) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p_value))
        adjusted[index] = least
    return adjusted


def compare_variants(errors: Mapping[str, Mapping[int, float]]) -> list[dict[str, Any]]:
    """`compare_pairs` of every pair of variants."""
    return compare_pairs(errors, tuple(itertools.combinations(errors, 2)))


def compare_path(
    errors: Mapping[str, Mapping[int, float]], path: Sequence[str]
) -> dict[str, Any] | None:
    """`compare_pairs` of each variant of a path, as a, with the one before it, as b.

    Returns:
        `steps`, in their order, and `whole`: the last compared with the first, a test that stands
        alone and has no `p_value_holm`. None without a path.
    """
    if not path:
        return None
    (whole,) = compare_pairs(errors, [(path[-1], path[0])])
    del whole["p_value_holm"]
    steps = [(after, before) for before, after in itertools.pairwise(path)]
    return {"steps": compare_pairs(errors, steps), "whole": whole}


def compare_pairs(
    errors: Mapping[str, Mapping[int, float]], pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Pairs of variants, compared over the seeds that both have; Holm's family is these pairs.

    Args:
        errors: of each variant the error of each seed that did not diverge.
        pairs: which to compare.

    Returns:
        Of each pair `a`, `b`, `difference` (the mean of a minus b), `ci95`, `p_value`,
        `p_value_holm`, `n`, `method` and `dropped`: how many seeds only one of the two has.
    """
    found = []
    for a, b in pairs:
        seeds = sorted(errors[a].keys() & errors[b].keys())
        compared = paired_comparison(
            [errors[a][seed] for seed in seeds], [errors[b][seed] for seed in seeds]
        )
        dropped = len(errors[a].keys() ^ errors[b].keys())
        found.append({"a": a, "b": b, **_described(compared), "dropped": dropped})
    return _with_holm(found)


def factor_effects(
    trials: Sequence[tuple[Mapping[str, Any], int, float | None]],
) -> list[dict[str, Any]]:
    """The main effect of each factor and each two-factor interaction, paired over seeds.

    Of every seed, a main effect is the mean error at a level minus that at the factor's first
    level, over all combinations of the other factors; an interaction is the difference of such
    differences, (y11 - y01) - (y10 - y00), over all combinations of the rest: the contrasts of a
    factorial design (Box, Hunter and Hunter 2005, chapter 5, without their factor 1/2 for the
    interaction). Holm's family is all of them.

    Args:
        trials: of each the factors' values (`seed` among them is passed over), the seed, and the
            error, or None if it diverged.

    Returns:
        Of each effect `kind` ("main" or "interaction"), `factors`, `levels` and `reference` (the
        values it leads to and from, one a factor), `difference` (the effect), `ci95`, `p_value`,
        `p_value_holm`, `n` (seeds), `method`, and `dropped`: how many seeds lack a result in some
        combination, so that they count nowhere. None if factors do not vary or some combination of
        their values was never tried.
    """
    levels: dict[str, list[Any]] = {}
    for factors, _, _ in trials:
        for factor, value in factors.items():
            if factor != "seed" and value not in levels.setdefault(factor, []):
                levels[factor].append(value)
    levels = {factor: values for factor, values in levels.items() if len(values) > 1}
    tried: dict[tuple[int, ...], dict[int, float | None]] = {}
    for factors, seed, error in trials:
        if not levels.keys() <= factors.keys():
            return []
        cell = tuple(values.index(factors[factor]) for factor, values in levels.items())
        tried.setdefault(cell, {})[seed] = error
    shape = tuple(map(len, levels.values()))
    if not levels or len(tried) < math.prod(shape):
        return []
    seeds = sorted(set().union(*tried.values()))
    whole = [
        seed for seed in seeds if all(errors.get(seed) is not None for errors in tried.values())
    ]
    table = np.array([[tried[cell][seed] for cell in np.ndindex(shape)] for seed in whole], float)
    table = table.reshape(len(whole), *shape)

    found = []
    for chosen in (
        *itertools.combinations(levels, 1),
        *itertools.combinations(levels, 2),
    ):
        axes = [list(levels).index(factor) for factor in chosen]
        rest = tuple(1 + axis for axis in range(len(shape)) if axis not in axes)
        means = table.mean(axis=rest)
        for indices in itertools.product(*(range(1, shape[axis]) for axis in axes)):
            compared = _contrast(means, indices)
            effect = {
                "kind": "main" if len(chosen) == 1 else "interaction",
                "factors": list(chosen),
                "levels": [levels[f][index] for f, index in zip(chosen, indices, strict=True)],
                "reference": [levels[factor][0] for factor in chosen],
            }
            dropped = len(seeds) - len(whole)
            found.append({**effect, **_described(compared), "dropped": dropped})
    return _with_holm(found)


def time_to_error(
    curve_epochs: Sequence[int],
    curve_seconds: Sequence[float],
    curve_errors: Sequence[float],
    targets: Sequence[float],
) -> tuple[Reached, ...]:
    """Of each target, the first epoch and second at which the error is not above it.

    Errors that are not finite reach nothing.
    """
    found = []
    for target in targets:
        first = next((i for i, error in enumerate(curve_errors) if error <= target), None)
        if first is None:
            found.append(Reached(target, None, None))
        else:
            found.append(Reached(target, int(curve_epochs[first]), float(curve_seconds[first])))
    return tuple(found)


def _contrast(means: Float[np.ndarray, "seed ..."], indices: tuple[int, ...]) -> Comparison:
    if len(indices) == 1:
        after, before = means[:, indices[0]], means[:, 0]
    else:
        i, j = indices
        after, before = means[:, i, j] + means[:, 0, 0], means[:, 0, j] + means[:, i, 0]
    return paired_comparison(after.tolist(), before.tolist())


def _described(compared: Comparison) -> dict[str, Any]:
    described = dataclasses.asdict(compared)
    described["ci95"] = None if compared.ci95 is None else list(compared.ci95)
    return described


def _with_holm(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    adjusted = holm([entry["p_value"] for entry in found])
    return [{**entry, "p_value_holm": p} for entry, p in zip(found, adjusted, strict=True)]
