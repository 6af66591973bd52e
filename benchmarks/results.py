"""How results are summed up, and where they are shown."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rich.console
from absl import app, flags, logging

CONSOLE = rich.console.Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def numbers(flag: str, texts: Sequence[str]) -> list[int]:
    """What a flag of the command line lists.

    Raises:
        ValueError: if it is no list of numbers.
    """
    try:
        return [int(text) for text in texts]
    except ValueError:
        raise ValueError(f"{flag}={','.join(texts)} must be numbers, such as 1,16") from None


@dataclasses.dataclass(frozen=True)
class Spread:
    """One quantity, measured once a round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return float(np.median(self.rounds))

    def __mul__(self, factor: "float | Spread") -> "Spread":
        each = factor.rounds if isinstance(factor, Spread) else [factor] * len(self.rounds)
        pairs = zip(each, self.rounds, strict=True)
        return Spread(tuple(mine * value for mine, value in pairs))

    def __truediv__(self, other: "Spread") -> "Spread":
        pairs = zip(self.rounds, other.rounds, strict=True)
        return Spread(tuple(mine / theirs for mine, theirs in pairs))

    def to_json(self) -> dict[str, Any]:
        """Median, range and rounds, for a JSON file."""
        low, high = min(self.rounds), max(self.rounds)
        return {"median": self.median, "min": low, "max": high, "rounds": list(self.rounds)}

    def text(self, digits: int = 2) -> str:
        """The median, and the range if there is one, for a reader."""
        values = (self.median, min(self.rounds), max(self.rounds))
        median, low, high = (f"{value:.{digits}f}" for value in values)
        return median if len(self.rounds) == 1 else f"{median} ({low} - {high})"


def run_command(main: Callable[[Any], None]) -> None:
    """Runs a benchmark with the flags of the command line; what is wrong is said in one line."""

    def run(argv: Sequence[str]) -> None:
        try:
            if len(argv) > 1:
                raise ValueError(f"{argv[1]!r} is not a flag; flags are written --name=value")
            main(flags.FLAGS)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")

    app.call_after_init(lambda: logging.set_verbosity(logging.WARNING))
    app.run(run)
