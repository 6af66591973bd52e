"""Beginning with trained parameters, and keeping some of them."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from lenet import checkpoints, experiment

SMALL = (2, 4, 12, 10)


def config(**fields):
    made = base.get_config()
    made.update({"dataset": "mnist_5k", "num_epochs": 1, "batch_size": 64, "widths": SMALL})
    for field, value in fields.items():
        with made.ignore_type():
            made[field] = ConfigDict(value) if isinstance(value, dict) else value
    return made


def run(made, folder):
    return experiment.run(made, "x", str(folder), draw=False)


def params_of(folder, variant):
    return {
        int(trained.config.seed): jax.device_get(trained.params)
        for trained in checkpoints.load_all(str(folder))
        if trained.variant == variant
    }


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@pytest.fixture(scope="module")
def source(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("source") / "run"
    made = config(
        sweep={"seed": (3, 5)},
        variants={"dense": {"head": "dense"}, "gap": {"head": "gap"}},
        train_examples=256,
    )
    run(made, folder)
    return folder


@pytest.fixture(scope="module")
def tuned(source, tmp_path_factory):
    """A rate so small that nothing moves: what is left is what it began with."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    made = config(
        init_from=str(source),
        learning_rate=0.0,
        sweep={"seed": (3, 4, 5)},
        variants={"dense": {"init_layers": ("c1", "c3")}, "gap": {"head": "gap"}},
        train_examples=64,
    )
    run(made, folder)
    return folder


def test_a_trial_begins_with_the_trained_trial_of_its_seed(source, tuned):
    trained, begun = params_of(source, "gap"), params_of(tuned, "gap")
    for seed in (3, 5):
        assert same(begun[seed], trained[seed])
    assert not same(trained[3], trained[5])


def test_a_seed_that_was_not_trained_takes_those_in_turn(source, tuned):
    # Of the two seeds 3 and 5, number 4 modulo 2 is the first.
    assert same(params_of(tuned, "gap")[4], params_of(source, "gap")[3])


def test_only_the_layers_named_are_taken(source, tuned):
    trained, begun = params_of(source, "dense")[5], params_of(tuned, "dense")[5]
    for layer in ("c1", "c3"):
        assert same(begun[layer], trained[layer])
    for layer in ("c5", "f6", "output"):
        assert not same(begun[layer], trained[layer])


def test_frozen_layers_keep_every_bit_and_the_others_move(source, tmp_path):
    made = config(
        init_from=str(source),
        init_variant="dense",
        frozen=("c1", "c3"),
        optimizer="adamw",
        weight_decay=0.1,
        seed=3,
        train_examples=256,
    )
    run(made, tmp_path / "run")
    before = params_of(source, "dense")[3]
    after = params_of(tmp_path / "run", "x")[3]
    for layer in before:
        assert same(before[layer], after[layer]) == (layer in ("c1", "c3")), layer


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"init_variant": "nothing"},
            "has no variant 'nothing'; set init_variant to one of: dense",
        ),
        ({}, "has no variant 'x'; set init_variant to one of: dense, gap"),
        ({"init_variant": "dense", "widths": (2, 4, 12, 9)}, "f6 of x is .*name the layers"),
        ({"init_variant": "gap"}, "not there"),
        ({"init_variant": "gap", "init_layers": ("c7",)}, "init_layers='c7' is not known; .* c1"),
        ({"frozen": ("s9",)}, "frozen='s9' is not known; choose one of: c1, s2, c3, s4, c5"),
        ({"frozen": "c1"}, "must be a list of layers"),
        ({"init_from": "/nowhere"}, "/nowhere holds no run"),
    ],
)
def test_what_cannot_be_begun_with_is_said_before_any_work(source, tmp_path, fields, message):
    made = config(**{"init_from": str(source), **fields})
    with pytest.raises((ValueError, OSError), match=message):
        run(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()
