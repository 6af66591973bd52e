"""The LeNet-5 of 1998 on 15,000, 30,000 and 60,000 training images: figure 6 of the paper.

    python main.py --config=configs/lenet5_1998_training_size.py

As `configs/lenet5_1998.py`, 20 passes through as many images as there are; four seeds.
"""

from ml_collections import ConfigDict

from configs import lenet5_1998


def get_config() -> ConfigDict:
    config = lenet5_1998.get_config()
    config.sweep.train_examples = (15_000, 30_000, 60_000)
    config.sweep.seed = tuple(range(4))
    return config
