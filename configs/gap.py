"""The fully connected head against global average pooling, each with its own rate.

    python main.py --config=configs/gap.py

`dense` is c5, f6 and the output layer: 61,706 parameters in all. `gap` averages each map of s4 and
feeds the 16 means to the output layer: 2,742 parameters. `gap_wide` does so with twice the maps
(12 and 32): 10,274 parameters, for 2.9 times the multiply-adds of `dense`. 540 model-epochs.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.validation_examples = 10_000
    config.variants.dense = {"head": "dense"}
    config.variants.gap = {"head": "gap"}
    config.variants.gap_wide = {"head": "gap", "widths": (12, 32, 120, 84)}
    config.sweep.learning_rate = (2e-3, 4e-3, 8e-3, 1.6e-2)
    config.sweep.seed = tuple(range(10))
    config.tune = ("learning_rate",)
    return config
