"""ReLU and average pooling.

    python main.py --config=configs/relu_avg.py

Expect about 1.0 % test error on MNIST after 10 epochs, in 40 seconds on 2 cores.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.activation = "relu"
    config.pooling = "average"
    return config
