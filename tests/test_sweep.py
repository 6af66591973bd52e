import importlib
import pathlib

import pytest
from ml_collections import ConfigDict

from configs import base
from lenet import sweep

CONFIGS = sorted(path.stem for path in pathlib.Path(base.__file__).parent.glob("*.py"))


def config(swept=None, **fields):
    made = base.get_config()
    made.update(fields)
    made.sweep = ConfigDict(swept or {})
    return made


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_resolves_and_says_how_to_run_it(name):
    module = importlib.import_module(f"configs.{name}")
    assert sweep.resolve(module.get_config(), name)
    assert f"python main.py --config=configs/{name}.py" in module.__doc__


def test_the_base_config_has_exactly_the_known_fields():
    assert set(base.get_config()) == {*sweep.FIELDS, *sweep.DECLARING}


def test_without_a_sweep_there_is_one_trial():
    (trial,) = sweep.resolve(config(seed=7), "relu_max")
    assert (trial.id, trial.variant, trial.seed) == ("relu_max/seed=7", "relu_max", 7)
    assert trial.config.activation == "relu"


def test_a_sweep_is_the_product_of_its_values():
    swept = {"activation": ("tanh", "relu"), "learning_rate": [0.1, 1], "seed": (3, 4, 5)}
    trials = sweep.resolve(config(swept), "x")
    assert len(trials) == len({trial.id for trial in trials}) == 12
    assert trials[0].id == "activation=tanh,learning_rate=0.1/seed=3"
    assert trials[-1].overrides == {"activation": "relu", "learning_rate": 1, "seed": 5}
    assert trials[-1].variant == "activation=relu,learning_rate=1"
    assert trials[-1].config.learning_rate == 1


def test_trials_that_differ_in_traced_numbers_make_one_population():
    swept = {"activation": ("tanh", "relu"), "learning_rate": (0.1, 0.2), "seed": (0, 1)}
    groups = sweep.populations(sweep.resolve(config(swept), "x"))
    assert [len(group) for group in groups] == [4, 4]
    assert {trial.fields["activation"] for trial in groups[0]} == {"tanh"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation": "leaky"}, "activation='leaky' is not known; choose one of: relu, tanh"),
        ({"pooling": "median"}, "pooling='median' is not known; choose one of: max, average"),
        ({"connections": "sparse"}, "connections='sparse' is not known; choose one of: full"),
        ({"head": "mlp"}, "head='mlp' is not known; choose one of: dense, gap"),
        ({"optimizer": "lion"}, "optimizer='lion' is not known; choose one of: sgd"),
        ({"schedule": "step"}, "schedule='step' is not known; choose one of: constant"),
        ({"loss": "hinge"}, "loss='hinge' is not known; choose one of: cross_entropy"),
        ({"initialization": "xavier"}, "initialization='xavier' is not known"),
        ({"convolution": "fft"}, "convolution='fft' is not known; choose one of: polyphase, lax"),
        ({"normalization": "zca"}, "normalization='zca' is not known; choose one of"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number, at least 1"),
        ({"num_epochs": -1}, "num_epochs=-1 must be a whole number, at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be a number, at least 0"),
        ({"learning_rate": -0.1}, "learning_rate=-0.1 must be a number, at least 0"),
        ({"momentum": 1.0}, "momentum=1.0 must be a number, at least 0 and below 1"),
        ({"seed": 2**31}, "seed=2147483648 must be a whole number"),
        ({"validation_examples": -5}, "validation_examples=-5 must be a whole number"),
        ({"widths": (6, 16, 120)}, r"widths=\(6, 16, 120\) must be four whole numbers"),
        ({"widths": (6, 16, 120, 0)}, "widths=0 must be a whole number, at least 1"),
        ({"connections": "table1", "widths": (6, 8, 9, 9)}, "from 6 maps to 16, not from 6 to 8"),
    ],
)
def test_a_wrong_value_is_named_with_the_valid_ones(fields, message):
    with pytest.raises(ValueError, match=message):
        sweep.resolve(config(**fields), "x")


def test_an_unknown_field_is_named_with_the_valid_ones():
    made = base.get_config()
    made.activaton = "tanh"
    with pytest.raises(ValueError, match="did you mean 'activation'") as raised:
        sweep.resolve(made, "x")
    assert all(field in str(raised.value) for field in sweep.FIELDS)


def test_a_missing_field_is_named():
    made = base.get_config()
    del made.pooling
    with pytest.raises(ValueError, match="lacks the field 'pooling'"):
        sweep.resolve(made, "x")


@pytest.mark.parametrize(
    ("swept", "message"),
    [
        ({"activaton": ("tanh",)}, "sweep.activaton is not a field that can be swept"),
        ({"dataset": ("mnist", "kmnist")}, "sweep.dataset is not a field that can be swept"),
        ({"seed": ()}, r"sweep.seed=\(\) must be a list of one or more values"),
        ({"seed": 3}, "sweep.seed=3 must be a list of one or more values"),
        ({"activation": "tanh"}, "sweep.activation='tanh' must be a list"),
        ({"seed": (1, 1)}, "names a value twice"),
        ({"seed": (0, "1")}, "sweep.seed='1' must be a whole number"),
        ({"activation": ("relu", "leaky")}, "sweep.activation='leaky' is not known"),
    ],
)
def test_a_wrong_sweep_is_refused(swept, message):
    with pytest.raises(ValueError, match=message):
        sweep.resolve(config(swept), "x")
