"""How far to distort digits, asked of training images that are held out.

    python main.py --config=configs/lenet5_1998_ranges.py

The paper of 1998 does not give the ranges of its distortions. Three widths of all four together,
the middle one that of `configs/base.py`; 10 passes, two seeds, tested on the last 10,000 training
images: the test images are never seen. The one with the least mean error is used by
`configs/lenet5_1998_distortions.py`.
"""

from ml_collections import ConfigDict

from configs import base, lenet5_1998_distortions

RANGES = ("translation", "scaling", "squeezing", "shear")


def get_config() -> ConfigDict:
    config = lenet5_1998_distortions.get_config()
    config.holdout = 10_000
    config.num_epochs = 10
    config.sweep.seed = (1000, 1001)
    middle = base.get_config()
    for name, factor in (("half", 0.5), ("base", 1.0), ("half as much again", 1.5)):
        config.variants[name] = ConfigDict({field: factor * middle[field] for field in RANGES})
    return config
