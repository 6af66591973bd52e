"""The LeNet-5 of 1998, trained on distorted digits.

    python main.py --config=configs/lenet5_1998_distortions.py

As `configs/lenet5_1998.py`, with the paper's training set of 60,000 originals and 540,000
distorted images, of which each pass presents 60,000. The paper's error is 0.8 %; it does not give
the ranges of its distortions. Six seeds.
"""

from ml_collections import ConfigDict

from configs import lenet5_1998


def get_config() -> ConfigDict:
    config = lenet5_1998.get_config()
    config.augmentation = "distortions_1998"
    config.sweep.seed = tuple(range(6))
    return config
