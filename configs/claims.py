"""The note's statements about LeNet, each put to the test.

    python main.py --config=configs/claims.py
    python main.py --config=configs/claims.py --config.quick=True     # all of it, small, in minutes

One report, a section a claim: what the note says, how it was tested, figures, numbers with
intervals, a verdict. A single one: `configs/claims/pooling.py` and the others beside it. CIFAR-10
counts only where it can be had; `color_dir` says where it lies.
"""

from ml_collections import ConfigDict

from configs import base

NAMES = (
    "activations",
    "linearity",
    "pooling",
    "parameters",
    "heads",
    "firewall",
    "choices",
    "pytorch",
    "kernels",
)


def get_config(names: tuple[str, ...] = NAMES) -> ConfigDict:
    config = ConfigDict()
    config.claims = names
    config.quick = False  # a subset of MNIST and hardly any training, to see that all of it runs
    config.color_dir = (
        ""  # CIFAR-10 or a part of it: an .npz, a folder; empty: fetched, or left out
    )
    config.base = base.get_config()
    return config
