"""What `speedrun` is to be: batch, inputs, rate and the number of epochs, on held-out images.

    python main.py --config=configs/speedrun_choice.py

The last 10,000 training images stand in the place of the test images, which are never seen. The
rule, written down before the run: of the settings whose mean held-out error has its whole 95 %
interval below 1 %, those with the fewest epochs; of these, those with the larger batch, which takes
less time; of these, the one with the least error. 216 models, 648 model-epochs.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.pooling = "average"
    config.holdout = 10_000
    for batch_size in (64, 128):
        for num_epochs in (2, 3, 4):
            for normalization in ("unit", "lecun"):
                name = f"{num_epochs} epochs of batches of {batch_size}, {normalization}"
                change = {"batch_size": batch_size, "num_epochs": num_epochs}
                config.variants[name] = ConfigDict({**change, "normalization": normalization})
    config.sweep.learning_rate = (3e-3, 6e-3, 1.2e-2)
    config.sweep.seed = (100, 101, 102, 103, 104, 105)
    return config
