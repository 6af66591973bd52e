"""The PyTorch tutorials' `Net`: ReLU, max pooling, 3x32x32 images, 62,006 parameters.

    python main.py --config=configs/note.py

Trained as the PyTorch tutorial trains it: CIFAR-10, pixels from -1 to 1 by their mean and spread,
SGD with learning rate 0.001 and momentum 0.9, batches of 4, two epochs, PyTorch's initial weights.
Expect 50 to 55 % accuracy, the published range, in about 20 seconds on 2 cores. Images of your own:

    python main.py --config=configs/note.py --config.data_dir=my_images.npz
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.dataset = "cifar10"
    config.normalization = "standard"
    config.initialization = "torch"
    config.optimizer = "momentum"
    config.learning_rate = 1e-3
    config.schedule = "constant"
    config.batch_size = 4
    config.num_epochs = 2
    return config
