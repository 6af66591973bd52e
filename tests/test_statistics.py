import numpy as np
import pytest

from lenet.statistics import mean_interval


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
