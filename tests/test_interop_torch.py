"""Against PyTorch's tutorial `Net`: as a golden file has it, and itself where it is installed."""

import importlib.util
import pathlib
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from ml_collections import ConfigDict

from configs import base
from lenet import checkpoints, experiment, model
from lenet.interop import torch as interop
from lenet.model import LeNet
from lenet.optimizers import Hyperparameters
from lenet.train import create_train_state, train_step
from tests import fakes

GOLDEN = pathlib.Path(__file__).parent / "golden" / "note_net.safetensors"
COLOUR = (32, 32, 3)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)


@pytest.fixture(scope="module")
def golden():
    return safetensors.numpy.load_file(GOLDEN)


@pytest.fixture(scope="module")
def state_dict(golden):
    """The weights, which were rounded to float16, as the float32 that they were used as."""
    return {
        name: array.astype(np.float32) for name, array in golden.items() if array.dtype == "float16"
    }


def channels_last(images):
    return jnp.asarray(images.transpose(0, 2, 3, 1))


def equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_logits_are_those_of_pytorch(golden, state_dict):
    params = interop.from_state_dict(state_dict)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 62_006
    logits = LeNet().apply({"params": params}, channels_last(fakes.noisy_batch(0)[0]))
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-5)


def test_100_steps_of_sgd_follow_those_of_pytorch(golden, state_dict):
    state = create_train_state(jax.random.key(0), LeNet(), COLOUR, optimizer="sgd")
    state = state.replace(params=interop.from_state_dict(state_dict))
    step, losses = jax.jit(train_step), []
    for number in range(100):
        images, labels = fakes.noisy_batch(number)
        batch = {"image": channels_last(images), "label": jnp.asarray(labels)}
        state, metrics = step(state, batch, Hyperparameters(0.05))
        losses.append(metrics["loss"] / metrics["examples"])
    assert np.mean(golden["losses"][-10:]) < 0.9 * np.mean(golden["losses"][:10])
    np.testing.assert_allclose(losses, golden["losses"], rtol=1e-3)
    np.testing.assert_allclose(losses[:10], golden["losses"][:10], rtol=1e-5)


def test_there_and_back_is_the_same(state_dict):
    params = interop.from_state_dict(state_dict)
    equal(interop.to_state_dict(params), state_dict)
    equal(interop.from_state_dict(interop.to_state_dict(params)), params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("fc2.bias"), "it lacks fc2.bias"),
        (lambda d: d.update({"bn.weight": np.zeros(3)}), "it has bn.weight besides"),
        (lambda d: d.update({"fc1.weight": np.zeros((120, 4, 4))}), "fc1.weight has shape"),
        (lambda d: d.update({"conv1.bias": np.zeros(5)}), r"conv1.weight .* its bias \(5,\)"),
    ],
)
def test_another_network_is_refused(state_dict, change, message):
    changed = dict(state_dict)
    change(changed)
    with pytest.raises(ValueError, match=message):
        interop.from_state_dict(changed)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (LeNet(head="gap"), "it lacks c5.kernel"),
        (LeNet(pooling="subsampling"), "it has s2.coefficient"),
        (LeNet(connections="table1"), "c3.kernel has shape"),
    ],
    ids=["head", "pooling", "connections"],
)
def test_a_lenet_that_is_no_net_is_refused(network, message):
    params = model.init_params(network, jax.random.key(0), COLOUR)
    with pytest.raises(ValueError, match=message):
        interop.to_state_dict(params)


def test_a_file_is_converted_and_back(tmp_path, state_dict):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    source = tmp_path / "net.safetensors"
    source.write_bytes(safetensors.numpy.save(state_dict))
    assert "parameters of LeNet" in interop.convert(source, ours)
    found = safetensors.numpy.load_file(ours)
    np.testing.assert_array_equal(found["c5.kernel"], state_dict["fc1.weight"].T)
    assert "the state_dict of" in interop.convert(ours, theirs)
    equal(safetensors.numpy.load_file(theirs), state_dict)


@pytest.mark.slow
def test_a_trained_run_is_exported(tmp_path, digits):
    config = base.get_config()
    config.update({"dataset": "mnist_5k", "num_epochs": 1, "train_examples": 128})
    config.sweep = ConfigDict({"seed": (0, 1)})
    experiment.run(config, "x", str(tmp_path / "run"))
    target = tmp_path / "net.safetensors"
    said = interop.convert(tmp_path / "run", target, "x/seed=1")
    assert "x/seed=1" in said
    assert "pixels * [0.00392" in said
    params = interop.from_state_dict(safetensors.numpy.load_file(target))
    equal(params, dict(checkpoints.load_trained(str(tmp_path / "run"), "x/seed=1").params))


@needs_torch
def test_pytorch_reads_what_is_written_and_its_own_weights_are_read(tmp_path, state_dict):
    import torch

    target = tmp_path / "net.pt"
    interop.write(target, state_dict)
    loaded = torch.load(target, weights_only=True)
    equal({name: tensor.numpy() for name, tensor in loaded.items()}, state_dict)
    torch.save(loaded, tmp_path / "own.pth")
    equal(interop.read(tmp_path / "own.pth"), state_dict)
    equal(interop.from_state_dict(loaded), interop.from_state_dict(state_dict))


@needs_torch
@pytest.mark.parametrize("content", ["network", "program", "text"])
def test_what_is_not_weights_alone_is_refused(tmp_path, content):
    import torch

    class Program:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "executed",))

    path = tmp_path / "net.pt"
    if content == "network":
        torch.save(torch.nn.Linear(2, 2), path)
    else:
        path.write_bytes(pickle.dumps(Program(), 2) if content == "program" else b"weights")
    with pytest.raises(ValueError, match="holds no weights alone"):
        interop.read(path)
    assert not (tmp_path / "executed").exists()


def test_without_pytorch_it_says_what_to_install(tmp_path, monkeypatch, state_dict):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install torch, or use \.safetensors"):
        interop.write(tmp_path / "net.pt", state_dict)
    assert not (tmp_path / "net.pt").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.onnx", b"", "must end in one of"),
        ("net.safetensors", b"weights", "no safetensors file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        interop.read(tmp_path / name)
