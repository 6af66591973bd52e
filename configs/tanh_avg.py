"""Tanh and average pooling: of the four corners, the closest to the network of 1998.

    python main.py --config=configs/tanh_avg.py

Expect about 1.1 % test error on MNIST after 10 epochs, in half a minute on 2 cores. Published:
98.82 % accuracy (tanh, Adam, 20 epochs, one run).
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.activation = "tanh"
    config.pooling = "average"
    return config
