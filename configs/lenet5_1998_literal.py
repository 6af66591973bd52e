"""The constants of 1998 exactly as printed, and what becomes of them.

    python main.py --config=configs/lenet5_1998_literal.py

mu = 0.02, eta from 5e-4, initial weights of 2.4 / F, curvature once a pass, for both losses: the
network saturates in the first pass and learns nothing. Then the same from 2.4 / sqrt(F), which
trains; and with the curvature estimated anew after every 2,000 patterns as well. Two seeds.
"""

from ml_collections import ConfigDict

from configs import lenet5_1998


def get_config() -> ConfigDict:
    config = lenet5_1998.get_config()
    config.learning_rate = 5e-4
    config.sweep.seed = (0, 1)
    losses = {"loss (8)": "rbf_mse", "loss (9)": "rbf_map"}
    for name, change in {
        "printed": {"initialization": "uniform_1998"},
        "root of the fan-in": {"initialization": "uniform_root_1998"},
        "root of the fan-in, renewed": {
            "initialization": "uniform_root_1998",
            "curvature_interval": 2000,
        },
    }.items():
        for loss_name, loss in losses.items():
            config.variants[f"{name}, {loss_name}"] = ConfigDict({**change, "loss": loss})
    return config
