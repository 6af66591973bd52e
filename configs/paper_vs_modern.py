"""From the LeNet-5 of 1998 to a LeNet of today, one change at a time: which of them matter?

    python main.py --config=configs/paper_vs_modern.py

`1998` is the paper's network with its optimizer, read as in `configs/lenet5_1998.py`. Each step of
the path makes one more change, in the order of CHANGES; the last is `modern`. Each change is also
made alone, `1998 with ...`, and undone alone, `modern with ...`; and both ends are trained with
distortions, each with those of its time.

The head and the loss are one change, as distances to codes need a loss of distances. He's initial
weights come after ReLU, for which they were derived. The order of a path matters: what a change
does with all the others made, or with none of them, the two references say.

The rate of each variant is chosen with one seed from four that suit its optimizer, batch and loss;
then it is trained for ten epochs with ten seeds: 39 variants, 5,460 model-epochs. The 15 variants
with batches of 1 take two fifths of them, and most of the time: a model-epoch is 6 s of a core
there, 10 s with Adam or distortions, 4 s with batches of 128; about four hours on 2 cores, and 72
minutes with --config.num_epochs=3. Published: 0.95 % (1998), 0.8 % with distortions, in 20 passes.
"""

import itertools
import operator
from typing import Any

from ml_collections import ConfigDict

from configs import base

PAPER = {
    "optimizer": "sdlm",
    "batch_size": 1,
    "head": "rbf",
    "loss": "rbf_map",
    "connections": "table1",
    "pooling": "subsampling",
    "activation": "scaled_tanh",
    "initialization": "uniform_root_1998",
    "normalization": "lecun",
    "order": "constant",
    "schedule": "passes_1998",
}
# What was there, what comes in its place, and the fields that this takes.
CHANGES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("SDLM", "SGD with momentum", {"optimizer": "momentum"}),
    ("SGD with momentum", "Adam", {"optimizer": "adam"}),
    ("batches of 1", "batches of 128", {"batch_size": 128}),
    ("RBF codes", "softmax", {"head": "dense", "loss": "cross_entropy"}),
    ("Table I", "full connections", {"connections": "full"}),
    ("subsampling", "average pooling", {"pooling": "average"}),
    ("average pooling", "max pooling", {"pooling": "max"}),
    ("scaled tanh", "tanh", {"activation": "tanh"}),
    ("tanh", "ReLU", {"activation": "relu"}),
    ("weights of 1998", "He initialisation", {"initialization": "he_normal"}),
    ("inputs of 1998", "standard inputs", {"normalization": "standard"}),
    ("constant order", "fresh order", {"order": "fresh"}),
    ("rates of 1998", "cosine schedule", {"schedule": "cosine"}),
)
# By optimizer, batch size and loss: about what did best of five rates in two epochs on 20,000
# training images, measured on 10,000 others.
RATES = {
    ("sdlm", 1, "rbf_map"): (1e-4, 2e-4, 4e-4, 8e-4),
    ("sdlm", 1, "cross_entropy"): (1e-4, 2e-4, 4e-4, 8e-4),
    ("sdlm", 128, "rbf_map"): (1e-3, 2e-3, 4e-3, 8e-3),
    ("sdlm", 128, "cross_entropy"): (1e-3, 2e-3, 4e-3, 8e-3),
    ("momentum", 1, "rbf_map"): (2.5e-5, 5e-5, 1e-4, 2e-4),
    ("momentum", 128, "cross_entropy"): (5e-3, 1e-2, 2e-2, 4e-2),
    ("adam", 1, "rbf_map"): (2.5e-4, 5e-4, 1e-3, 2e-3),
    ("adam", 1, "cross_entropy"): (2e-4, 4e-4, 8e-4, 1.6e-3),
    ("adam", 128, "rbf_map"): (2e-3, 4e-3, 8e-3, 1.6e-2),
    ("adam", 128, "cross_entropy"): (2e-3, 4e-3, 8e-3, 1.6e-2),
}


def get_config() -> ConfigDict:
    steps = (change for _, _, change in CHANGES)
    states = tuple(itertools.accumulate(steps, operator.or_, initial=PAPER))
    modern = states[-1]
    variants: dict[str, dict[str, Any]] = {}

    def named(name: str, fields: dict[str, Any]) -> str:
        """Declares a variant, unless it is there under another name; gives its name."""
        known = next((known for known, same in variants.items() if same == fields), name)
        variants[known] = fields
        return known

    names = ("1998", *(f"+ {becomes}" for _, becomes, _ in CHANGES[:-1]), "modern")
    path = tuple(map(named, names, states))
    alone = [named(f"1998 with {becomes}", PAPER | change) for _, becomes, change in CHANGES]
    undone = [
        named(f"modern with {was}", modern | {field: before[field] for field in change})
        for (was, _, change), before in zip(CHANGES, states[:-1], strict=True)
    ]
    alone.append(named("1998 with distortions", PAPER | {"augmentation": "distortions_1998"}))
    undone.append(named("modern with distortions", modern | {"augmentation": "distortions"}))

    config = base.get_config()
    config.validation_examples = 10_000
    config.damping = 0.02
    config.rbf_j = 10.0
    for name, fields in variants.items():
        rates = RATES[fields["optimizer"], fields["batch_size"], fields["loss"]]
        config.variants[name] = fields | {"learning_rate": rates}
    config.path = path
    config.references["1998"] = tuple(alone)
    config.references["modern"] = tuple(undone)
    config.sweep.seed = tuple(range(10))
    config.tune = ("learning_rate",)
    config.tune_seeds = (1000,)
    return config
