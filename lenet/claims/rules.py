"""From an interval to a verdict.

A statement about a number is supported where the whole 95 % interval is on its side, refuted where
the whole interval is on the other, and otherwise undecided: the data could be of either.
"""

from collections.abc import Iterable, Sequence

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
VERDICTS = (SUPPORTED, REFUTED, UNDECIDED)

Interval = Sequence[float] | None


def below(interval: Interval, bound: float = 0.0) -> str:
    """Whether a number is below a bound, given its interval; without one nothing is decided."""
    if interval is None:
        return UNDECIDED
    low, high = interval
    if high < bound:
        return SUPPORTED
    return REFUTED if low >= bound else UNDECIDED


def above(interval: Interval, bound: float = 0.0) -> str:
    """Whether a number is above a bound."""
    if interval is None:
        return UNDECIDED
    return below((-interval[1], -interval[0]), -bound)


def within(interval: Interval, low: float, high: float) -> str:
    """Whether a number lies between two bounds."""
    return all_of((above(interval, low), below(interval, high)))


def exactly(holds: bool) -> str:
    """The verdict on what is computed, not estimated."""
    return SUPPORTED if holds else REFUTED


def all_of(verdicts: Iterable[str]) -> str:
    """Whether every one of some statements is true: refuted by one of them that is refuted.

    Raises:
        ValueError: if there are none.
    """
    found = tuple(verdicts)
    if not found:
        raise ValueError("no statements: there is nothing to decide")
    if REFUTED in found:
        return REFUTED
    return UNDECIDED if UNDECIDED in found else SUPPORTED


def majority(verdicts: Sequence[str]) -> str:
    """Whether a statement about what is usual is true: more than half of the cases on one side.

    Raises:
        ValueError: if there are no cases.
    """
    if not verdicts:
        raise ValueError("no cases: there is nothing to decide")
    for verdict in (SUPPORTED, REFUTED):
        if 2 * sum(found == verdict for found in verdicts) > len(verdicts):
            return verdict
    return UNDECIDED
