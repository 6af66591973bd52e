"""LeNet as it would be trained today: ReLU, max pooling, He initialisation, AdamW, warm-up.

    python main.py --config=configs/modern.py

Expect about 0.85 % test error on MNIST after 20 epochs, in a minute on 2 cores: on this network and
these images, no better than `relu_max` after 10.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.normalization = "standard"
    config.initialization = "he_normal"
    config.optimizer = "adamw"
    config.weight_decay = 0.01
    config.schedule = "warmup_cosine"
    config.num_epochs = 20
    return config
