"""The PyTorch tutorials' `Net`: ReLU, max pooling, 3x32x32 images, 62,006 parameters.

    python main.py --config=configs/note.py

The network is exactly that one, and so are its initial weights; it is trained with Adam for 15
epochs. On 5,000 images of CIFAR-10 expect about 49 % accuracy (chance is 10 %), in 20 seconds on
2 cores. Published with all 50,000 images: 50 to 55 % after 2 epochs of SGD, 58.5 % after 200.
Images of your own:

    python main.py --config=configs/note.py --config.data_dir=my_images.npz
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.dataset = "cifar10"
    config.normalization = "standard"
    config.initialization = "torch"
    config.batch_size = 32
    config.num_epochs = 15
    return config
