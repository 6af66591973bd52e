import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lenet.statistics import (
    Reached,
    compare_path,
    compare_variants,
    factor_effects,
    holm,
    mean_interval,
    paired_comparison,
    time_to_error,
)

# Errors in percent of five seeds, for the designs below.
ERRORS = {
    ("tanh", "max"): (1.01, 0.96, 1.10, 0.99, 0.93),
    ("tanh", "average"): (1.12, 1.05, 1.16, 1.10, 1.11),
    ("relu", "max"): (0.97, 0.98, 1.01, 0.94, 0.90),
    ("relu", "average"): (1.05, 1.13, 1.06, 1.00, 1.08),
}


def factorial(errors):
    """Trials of an activation x pooling design from the errors of its cells, seed by seed."""
    return [
        ({"activation": activation, "pooling": pooling, "seed": seed}, seed, error)
        for (activation, pooling), values in errors.items()
        for seed, error in enumerate(values)
    ]


def test_the_interval_of_three_values_by_hand():
    # Mean 2, standard deviation 1, t(0.975, 2) = 4.3027: half width 4.3027 / sqrt(3).
    mean, (low, high) = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert (low, high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)


def test_the_interval_holds_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        _, (low, high) = mean_interval(list(rng.normal(3.0, 2.0, 5)))
        held += low <= 3.0 <= high
    assert 0.93 < held / 1000 < 0.97


def test_one_value_has_no_interval():
    assert mean_interval([0.5]) == (0.5, None)


def test_no_values_have_no_mean():
    with pytest.raises(ValueError, match="the mean of no values"):
        mean_interval([])


def test_a_paired_comparison_by_hand():
    # Differences 1, 2, 3: t = 2 sqrt(3) / 1 = 3.4641 with 2 degrees of freedom, p = 0.0742.
    compared = paired_comparison([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (compared.difference, compared.n) == (2.0, 3)
    assert compared.ci95 == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)
    assert compared.p_value == pytest.approx(0.0742, abs=1e-4)
    assert compared.method == "paired t over seeds"


def test_a_paired_comparison_agrees_with_statsmodels():
    # statsmodels 0.15.0: d = DescrStatsW(a - b); d.tconfint_mean(), d.ttest_mean().
    a = [0.0101, 0.0096, 0.0110, 0.0099, 0.0093]
    b = [0.0097, 0.0098, 0.0101, 0.0094, 0.0090]
    compared = paired_comparison(a, b)
    assert compared.difference == pytest.approx(0.00038)
    assert compared.ci95 == pytest.approx((-0.00011198732611354071, 0.0008719873261135403))
    assert compared.p_value == pytest.approx(0.09859229082966894)


def test_the_paired_interval_excludes_zero_exactly_when_p_is_below_five_percent():
    rng = np.random.default_rng(1)
    told_apart = 0
    for _ in range(300):
        compared = paired_comparison(rng.normal(0.3, 1, 12).tolist(), rng.normal(0, 1, 12).tolist())
        low, high = compared.ci95
        assert (compared.p_value < 0.05) == (low > 0 or high < 0)
        told_apart += compared.p_value < 0.05
    assert 0 < told_apart < 300


def test_the_paired_interval_holds_the_true_difference_as_often_as_it_says():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(1000):
        seed_effect = rng.normal(0, 5, 10)
        a, b = seed_effect + rng.normal(1, 1, 10), seed_effect + rng.normal(0, 1, 10)
        low, high = paired_comparison(a.tolist(), b.tolist()).ci95
        held += low <= 1 <= high
    assert 0.93 < held / 1000 < 0.97


@pytest.mark.parametrize(
    ("a", "b", "difference", "method"),
    [
        ([], [], None, "no test: fewer than two pairs"),
        ([0.3], [0.1], 0.2, "no test: fewer than two pairs"),
        ([0.5, 0.75], [0.25, 0.5], 0.25, "no test: every pair differs by the same"),
        ([0.1, 0.1], [0.1, 0.1], 0.0, "no test: every pair differs by the same"),
        ([0.3, 0.1 + 0.2], [0.1, 0.1], 0.2, "no test: every pair differs by the same"),
    ],
)
def test_what_does_not_vary_is_not_tested(a, b, difference, method):
    compared = paired_comparison(a, b)
    assert compared.difference == (None if difference is None else pytest.approx(difference))
    assert (compared.ci95, compared.p_value, compared.n) == (None, None, len(a))
    assert compared.method == method


def test_values_that_are_not_pairs_are_refused():
    with pytest.raises(ValueError, match="2 values cannot be paired with 1"):
        paired_comparison([0.1, 0.2], [0.1])


def test_holm_by_hand():
    # 0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.04, neither below the one before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_holm_agrees_with_statsmodels():
    # statsmodels 0.15.0: multipletests([0.01, 0.04, 0.03, 0.005, 0.2], method="holm")[1].
    adjusted = holm([0.01, 0.04, 0.03, 0.005, 0.2])
    assert adjusted == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.2])


def test_holm_passes_over_tests_that_were_not_made():
    assert holm([None, 0.02, None, 0.5]) == [None, pytest.approx(0.04), None, pytest.approx(0.5)]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p_value, corrected in zip(p_values, adjusted, strict=True):
        assert p_value <= corrected <= min(1.0, len(p_values) * p_value)
    for (p, corrected), (q, other) in itertools.combinations(
        zip(p_values, adjusted, strict=True), 2
    ):
        assert (p - q) * (corrected - other) >= 0


def test_holm_keeps_the_chance_of_any_false_finding_at_its_level():
    rng = np.random.default_rng(3)
    samples = rng.normal(0, 1, (2000, 6, 5))
    p_values = scipy.stats.ttest_1samp(samples, 0, axis=2).pvalue
    uncorrected = np.mean([min(row) < 0.05 for row in p_values.tolist()])
    corrected = np.mean([min(holm(row)) < 0.05 for row in p_values.tolist()])
    assert uncorrected > 0.2
    assert 0.035 < corrected < 0.065


def test_every_pair_of_variants_is_compared_over_the_seeds_that_both_have():
    found = compare_variants(
        {
            "a": {0: 0.10, 1: 0.20, 2: 0.15, 3: 0.5},
            "b": {0: 0.11, 1: 0.20, 2: 0.19},
            "c": {1: 0.3, 9: 0.3},
            "d": {},
        }
    )
    pairs = {(entry["a"], entry["b"]): entry for entry in found}
    assert list(pairs) == [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
    expected = scipy.stats.ttest_rel([0.10, 0.20, 0.15], [0.11, 0.20, 0.19])
    assert pairs["a", "b"] == {
        "a": "a",
        "b": "b",
        "difference": pytest.approx(-0.05 / 3),
        "ci95": pytest.approx(list(expected.confidence_interval())),
        "p_value": pytest.approx(expected.pvalue),
        "p_value_holm": pytest.approx(expected.pvalue),
        "n": 3,
        "method": "paired t over seeds",
        "dropped": 1,
    }
    assert (pairs["a", "c"]["n"], pairs["a", "c"]["dropped"]) == (1, 4)
    assert pairs["a", "c"]["difference"] == pytest.approx(-0.1)
    assert pairs["a", "d"]["difference"] is None
    assert pairs["a", "d"]["p_value_holm"] is None


def test_holms_family_is_all_pairs_of_variants():
    rng = np.random.default_rng(4)
    errors = {name: dict(enumerate(rng.normal(0, 1, 6).tolist())) for name in "abcd"}
    found = compare_variants(errors)
    assert [entry["p_value_holm"] for entry in found] == holm([entry["p_value"] for entry in found])
    assert len(found) == 6


def test_a_path_compares_each_variant_with_the_one_before_it():
    rng = np.random.default_rng(3)
    errors = {name: dict(enumerate(rng.normal(0.01, 0.001, 6).tolist())) for name in "abc"}
    del errors["c"][5]
    found = compare_path(errors, ("c", "a", "b"))
    first, second = found["steps"]
    assert [(step["a"], step["b"], step["n"], step["dropped"]) for step in found["steps"]] == [
        ("a", "c", 5, 1),
        ("b", "a", 6, 0),
    ]
    p_values = [
        scipy.stats.ttest_rel([errors[a][s] for s in seeds], [errors[b][s] for s in seeds]).pvalue
        for a, b, seeds in (("a", "c", range(5)), ("b", "a", range(6)))
    ]
    assert [first["p_value"], second["p_value"]] == pytest.approx(p_values)
    # Holm's family is the two steps, and not the comparison of the ends.
    least = 2 * min(p_values)
    assert [first["p_value_holm"], second["p_value_holm"]] == pytest.approx(
        [min(1, max(least, p if p > min(p_values) else least)) for p in p_values]
    )
    assert (found["whole"]["a"], found["whole"]["b"]) == ("b", "c")
    assert "p_value_holm" not in found["whole"]
    assert compare_path(errors, ()) is None


def test_main_effects_and_interaction_by_hand():
    errors = {
        ("tanh", "max"): (1.0, 2.0),
        ("tanh", "average"): (2.0, 3.0),
        ("relu", "max"): (3.0, 4.5),
        ("relu", "average"): (7.0, 9.5),
    }
    activation, pooling, interaction = factor_effects(factorial(errors))
    # Seed 0: (3 + 7)/2 - (1 + 2)/2 = 3.5; seed 1: 7 - 2.5 = 4.5.
    assert (activation["kind"], activation["factors"]) == ("main", ["activation"])
    assert (activation["levels"], activation["reference"]) == (["relu"], ["tanh"])
    assert activation["difference"] == pytest.approx(4.0)
    # Half width: t(0.975, 1) = 12.7062, standard error 0.5.
    assert activation["ci95"] == pytest.approx([4 - 6.3531, 4 + 6.3531], abs=1e-4)
    # Seed 0: (2 + 7)/2 - (1 + 3)/2 = 2.5; seed 1: 6.25 - 3.25 = 3.
    assert (pooling["levels"], pooling["reference"]) == (["average"], ["max"])
    assert pooling["difference"] == pytest.approx(2.75)
    # Seed 0: (7 - 2) - (3 - 1) = 3; seed 1: (9.5 - 3) - (4.5 - 2) = 4.
    assert interaction["kind"] == "interaction"
    assert interaction["factors"] == ["activation", "pooling"]
    assert (interaction["levels"], interaction["reference"]) == (
        ["relu", "average"],
        ["tanh", "max"],
    )
    assert interaction["difference"] == pytest.approx(3.5)
    assert {effect["n"] for effect in (activation, pooling, interaction)} == {2}


def test_effects_agree_with_the_repeated_measures_anova_of_statsmodels():
    # statsmodels 0.15.0: AnovaRM(table, "error", "seed", within=["activation", "pooling"]).fit()
    # on ERRORS; with two levels a factor, F is t squared, and the p-values are the same.
    found = factor_effects(factorial(ERRORS))
    p_values = [effect["p_value"] for effect in found]
    assert p_values == pytest.approx([0.1786532945, 0.007019928143, 0.7631831241], rel=1e-8)
    assert [effect["p_value_holm"] for effect in found] == pytest.approx(holm(p_values))


def test_a_seed_without_a_result_in_some_cell_counts_in_no_effect():
    errors = dict(ERRORS)
    errors["relu", "average"] = (1.05, None, 1.06, 1.00)
    left = {cell: [values[seed] for seed in (0, 2, 3)] for cell, values in ERRORS.items()}
    found = factor_effects(factorial(errors))
    expected = factor_effects(factorial(left))
    assert [effect["dropped"] for effect in found] == [2, 2, 2]
    assert [{**effect, "dropped": 0} for effect in found] == expected


def test_each_level_but_the_first_has_an_effect_and_each_pair_of_factors_an_interaction():
    rng = np.random.default_rng(5)
    levels = {"activation": ("tanh", "relu", "sigmoid"), "pooling": ("max", "average"), "k": (1, 2)}
    trials = [
        (dict(zip(levels, combination, strict=True)), seed, float(rng.normal()))
        for combination in itertools.product(*levels.values())
        for seed in range(3)
    ]
    found = factor_effects(trials)
    assert [effect["levels"] for effect in found] == [
        ["relu"],
        ["sigmoid"],
        ["average"],
        [2],
        ["relu", "average"],
        ["sigmoid", "average"],
        ["relu", 2],
        ["sigmoid", 2],
        ["average", 2],
    ]
    by_seed = [
        np.mean([e for f, s, e in trials if s == seed and f["activation"] == "sigmoid"])
        - np.mean([e for f, s, e in trials if s == seed and f["activation"] == "tanh"])
        for seed in range(3)
    ]
    assert found[1]["difference"] == pytest.approx(np.mean(by_seed))
    assert found[1]["p_value"] == pytest.approx(scipy.stats.ttest_1samp(by_seed, 0).pvalue)


def test_effects_that_add_up_have_no_interaction():
    rng = np.random.default_rng(6)
    seeds = rng.normal(0, 1, 20)
    errors = {
        (activation, pooling): (seeds + a + p + rng.normal(0, 0.01, 20)).tolist()
        for activation, a in (("tanh", 0.0), ("relu", 0.5))
        for pooling, p in (("max", 0.0), ("average", -0.25))
    }
    activation, pooling, interaction = factor_effects(factorial(errors))
    assert activation["difference"] == pytest.approx(0.5, abs=0.01)
    assert pooling["difference"] == pytest.approx(-0.25, abs=0.01)
    assert interaction["difference"] == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [({"seed": seed}, seed, 0.1) for seed in range(3)],
        [({"activation": "tanh", "seed": seed}, seed, 0.1) for seed in range(3)],
        factorial({cell: ERRORS[cell] for cell in list(ERRORS)[:3]}),
        [*factorial(ERRORS), ({"activation": "relu"}, 0, 0.1)],
    ],
)
def test_a_design_that_is_not_a_full_product_has_no_effects(trials):
    assert factor_effects(trials) == []


def test_effects_are_there_but_empty_when_a_cell_always_diverged():
    found = factor_effects(factorial({**ERRORS, ("relu", "max"): (None,) * 5}))
    assert [(effect["difference"], effect["n"], effect["dropped"]) for effect in found] == [
        (None, 0, 5)
    ] * 3


def test_the_first_epoch_and_second_at_which_an_error_is_reached():
    errors = [0.05, float("nan"), 0.02, 0.03, 0.01]
    found = time_to_error([1, 2, 3, 4, 5], [1.5, 3.0, 4.5, 6.0, 7.5], errors, [0.1, 0.02, 0.001])
    assert found == (Reached(0.1, 1, 1.5), Reached(0.02, 3, 4.5), Reached(0.001, None, None))


def test_a_curve_without_points_reaches_nothing():
    assert time_to_error([], [], [], [0.1]) == (Reached(0.1, None, None),)
