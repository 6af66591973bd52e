"""Looking a choice up by its name."""

from collections.abc import Mapping
from typing import TypeVar

Choice = TypeVar("Choice")


def lookup(choices: Mapping[str, Choice], name: str, field: str) -> Choice:
    """Returns `choices[name]`.

    Raises:
        ValueError: if there is no such choice; the message names the field and the valid choices.
    """
    if name not in choices:
        raise ValueError(f"{field}={name!r} is not known; choose one of: {', '.join(choices)}")
    return choices[name]
