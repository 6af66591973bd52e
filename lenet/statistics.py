"""Means with intervals."""

from collections.abc import Sequence

import numpy as np
import scipy.stats


def mean_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, tuple[float, float] | None]:
    """The mean of independent values and Student's t interval for it.

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
