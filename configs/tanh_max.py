"""Tanh and max pooling.

    python main.py --config=configs/tanh_max.py

Expect about 1.0 % test error on MNIST after 10 epochs, in half a minute on 2 cores. Published:
98.93 % accuracy (Adam, 10 epochs, one run).
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.activation = "tanh"
    config.pooling = "max"
    return config
