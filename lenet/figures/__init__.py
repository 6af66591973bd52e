"""The report's figures: pure functions from numbers to a matplotlib Figure, and from that to SVG.

No pyplot and no global state, and the same numbers give the same bytes. Every colour is one of
`PALETTE`, so that a page that inlines the SVG can exchange them by name in a dark scheme.
"""

from lenet.figures.claims import shares, signed_images
from lenet.figures.curves import Curve, Sensitivity, learning_curves, sensitivity
from lenet.figures.errors import (
    Cell,
    Cost,
    Difference,
    ErrorsOfVariant,
    differences,
    errors_against_seconds,
    errors_by_variant,
    factor_grid,
)
from lenet.figures.images import confusion_matrix, image_grid, portrait
from lenet.figures.paper import bitmaps, distorted
from lenet.figures.paths import Step, changes, verdict, waterfall
from lenet.figures.style import PALETTE, POINTS_PER_INCH, SERIES, series_color, to_svg
from lenet.figures.units import (
    MAX_CLASSES,
    MAX_MAPS,
    MAX_PAIRS,
    MAX_UNITS,
    excited,
    kernels,
    layer_maps,
    prediction,
    receptive_fields,
    unit_worked_out,
)

__all__ = (
    "MAX_CLASSES",
    "MAX_MAPS",
    "MAX_PAIRS",
    "MAX_UNITS",
    "PALETTE",
    "POINTS_PER_INCH",
    "SERIES",
    "Cell",
    "Cost",
    "Curve",
    "Difference",
    "ErrorsOfVariant",
    "Sensitivity",
    "Step",
    "bitmaps",
    "changes",
    "confusion_matrix",
    "differences",
    "distorted",
    "errors_against_seconds",
    "errors_by_variant",
    "excited",
    "factor_grid",
    "image_grid",
    "kernels",
    "layer_maps",
    "learning_curves",
    "portrait",
    "prediction",
    "receptive_fields",
    "sensitivity",
    "series_color",
    "shares",
    "signed_images",
    "to_svg",
    "unit_worked_out",
    "verdict",
    "waterfall",
)
