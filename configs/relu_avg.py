"""ReLU and average pooling.

    python main.py --config=configs/relu_avg.py

Expect about 0.8 % test error on MNIST after 10 epochs, in half a minute on 2 cores.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.activation = "relu"
    config.pooling = "average"
    return config
