"""Four activations x four poolings, each with its own rate, over four seeds.

    python main.py --config=configs/ablation_full.py

As `configs/ablation.py`, with sigmoid and the paper's scaled tanh as well, and the pooling that is
trained: the paper's subsampling, and a strided convolution. 16 variants, their rates chosen with
one seed: 1,280 model-epochs, about 45 minutes on 2 cores. To add seeds later, run it again with
--config.sweep.seed='(0,1,2,3,4,5,6,7)'; only the new trials are trained.
"""

from ml_collections import ConfigDict

from configs import ablation


def get_config() -> ConfigDict:
    config = ablation.get_config()
    config.sweep.activation = ("sigmoid", "tanh", "scaled_tanh", "relu")
    config.sweep.pooling = ("max", "average", "subsampling", "stride")
    config.sweep.learning_rate = (2e-3, 4e-3, 8e-3, 16e-3)
    config.sweep.seed = tuple(range(4))
    config.tune_seeds = (1000,)
    return config
