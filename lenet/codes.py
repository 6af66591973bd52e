"""The paper's output codes: 7x12 bitmaps of the digits, and distances to them (section II.B).

The 84 units of f6 are asked to draw the digit, so that characters that look alike get codes that
are alike. The codes were chosen by hand and are fixed: 840 numbers that are no parameters.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

HEIGHT, WIDTH = 12, 7
UNITS = HEIGHT * WIDTH

# Read off figure 3; row by row, the digits 0 to 9 side by side. Three pixels cannot be told there:
# the upper corners of 3, and the upper left one of 7.
_ROWS = """
.#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
.##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###
##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""

# +1 where the character is on and -1 where it is off: class, row, column.
BITMAPS = np.array(
    [
        [[1.0 if pixel == "#" else -1.0 for pixel in row] for row in digit]
        for digit in zip(*(line.split() for line in _ROWS.split("\n") if line), strict=True)
    ],
    np.float32,
)


def check(units: int, classes: int) -> None:
    """Checks that there are codes for a network.

    Raises:
        ValueError: if f6 has not 84 units, or there are more classes than digits.
    """
    if units != UNITS:
        raise ValueError(
            f"head='rbf' compares the {UNITS} units of f6 with 7x12 bitmaps, not {units}; "
            f"end widths with {UNITS} or choose another head"
        )
    if classes > len(BITMAPS):
        raise ValueError(
            f"head='rbf' has codes for {len(BITMAPS)} classes, not {classes}; choose another head"
        )


def squared_distances(
    units: Float[Array, "84 batch"], classes: int = 10
) -> Float[Array, "classes batch"]:
    """y_i = sum_j (x_j - w_ij)^2, the Euclidean RBF units of equation (7)."""
    codes = jnp.asarray(BITMAPS[:classes].reshape(classes, UNITS, 1))
    return ((units[None] - codes) ** 2).sum(axis=1)


def derivatives(
    units: Float[Array, "batch 84"], classes: int = 10
) -> tuple[Float[Array, "batch classes 84"], float]:
    """Of minus the distances, the first derivatives by each unit, and the second, which is -2."""
    codes = jnp.asarray(BITMAPS[:classes].reshape(classes, UNITS))
    return -2 * (units[:, None] - codes[None]), -2.0
