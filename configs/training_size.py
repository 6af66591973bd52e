"""Error against training images: 15,000, 30,000 and 60,000, as in the paper's figure 6.

    python main.py --config=configs/training_size.py

The ReLU + max LeNet, five seeds each, as many epochs for all: the larger sets also get more steps.
The paper's own network reaches 0.95 % with all 60,000. 87 model-epochs of 60,000 images: about 3
minutes on 2 cores.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.sweep.train_examples = (15_000, 30_000, 60_000)
    config.sweep.seed = tuple(range(5))
    return config
