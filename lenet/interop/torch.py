"""The parameters of PyTorch's tutorial `Net` as ours, and ours as its.

    python -m lenet.interop.torch --from=net.pt --to=params.safetensors
    python -m lenet.interop.torch --from=runs/note --to=net.pt

`Net` is `conv1 pool conv2 pool fc1 fc2 fc3`, our `c1 s2 c3 s4 c5 f6 output`, of any widths. It
flattens with `view(-1, 16 * 5 * 5)`, channel by channel, each row by row; so do we, and no weight
changes its place in `fc1`. A kernel of PyTorch is `out in row column` or `out in`, one of ours
`row column in out` or `in out`.

Files are `.safetensors`, or `.pt` with weights only, which needs PyTorch. Nothing is unpickled.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from absl import app, flags, logging

from lenet import checkpoints
from lenet.files import write_atomically

# Our names of the layers, and those of `Net`.
LAYERS = {"c1": "conv1", "c3": "conv2", "c5": "fc1", "f6": "fc2", "output": "fc3"}
DIMENSIONS = {"c1": 4, "c3": 4, "c5": 2, "f6": 2, "output": 2}
FORMATS = (".safetensors", ".pt", ".pth")
INSTALL = "reading and writing .pt needs PyTorch: pip install torch, or use .safetensors"

Arrays = Mapping[str, np.ndarray]
Params = Mapping[str, Mapping[str, Any]]


def from_state_dict(state_dict: Mapping[str, Any]) -> dict[str, dict[str, jax.Array]]:
    """Our parameters from the `state_dict` of a `Net`, as arrays or as tensors on the CPU.

    Raises:
        ValueError: if tensors are missing, unknown or of the wrong shape, naming them.
    """
    arrays = {name: np.asarray(value) for name, value in state_dict.items()}
    _check_names(arrays, [f"{name}.{leaf}" for name in LAYERS.values() for leaf in TORCH_LEAVES])
    params = {}
    for ours, theirs in LAYERS.items():
        weight, bias = arrays[f"{theirs}.weight"], arrays[f"{theirs}.bias"]
        _check_shapes(f"{theirs}.weight", weight, DIMENSIONS[ours], bias, outputs=0)
        turned = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        params[ours] = {"kernel": jnp.asarray(turned), "bias": jnp.asarray(bias)}
    return params


def to_state_dict(params: Params) -> dict[str, np.ndarray]:
    """The `state_dict` of a `Net`, as arrays, from our parameters.

    Raises:
        ValueError: if the network is not a `Net`: another head, fewer connections from s2 to c3, or
            pooling with parameters.
    """
    found = [f"{layer}.{leaf}" for layer, leaves in params.items() for leaf in leaves]
    _check_names(found, [f"{name}.{leaf}" for name in LAYERS for leaf in OUR_LEAVES])
    state_dict = {}
    for ours, theirs in LAYERS.items():
        kernel, bias = (np.asarray(params[ours][leaf]) for leaf in OUR_LEAVES)
        _check_shapes(f"{ours}.kernel", kernel, DIMENSIONS[ours], bias, outputs=-1)
        turned = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        state_dict[f"{theirs}.weight"] = np.ascontiguousarray(turned)
        state_dict[f"{theirs}.bias"] = bias
    return state_dict


TORCH_LEAVES = ("weight", "bias")
OUR_LEAVES = ("kernel", "bias")


def _check_names(found: Sequence[str] | Mapping[str, Any], expected: Sequence[str]) -> None:
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    if missing or unknown:
        parts = [f"it lacks {', '.join(missing)}"] if missing else []
        parts += [f"it has {', '.join(unknown)} besides"] if unknown else []
        raise ValueError(f"this is not PyTorch's tutorial Net: {'; '.join(parts)}")


def _check_shapes(
    name: str, weights: np.ndarray, dimensions: int, bias: np.ndarray, outputs: int
) -> None:
    if weights.ndim != dimensions or bias.shape != (weights.shape[outputs],):
        raise ValueError(
            f"this is not PyTorch's tutorial Net: {name} has shape {weights.shape} and its bias "
            f"{bias.shape}"
        )


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name.

    Raises:
        ValueError: if the file is of another format, or broken.
        OSError: if it cannot be read.
        ImportError: if it takes PyTorch, and that is not installed.
    """
    _check_format(path)
    if path.suffix == ".safetensors":
        try:
            return safetensors.numpy.load(path.read_bytes())
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from error
    torch = _torch()
    with path.open("rb") as file:
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # Of many kinds, as what is read may be anything.
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} holds no weights alone: {reason}") from error
    if not isinstance(loaded, Mapping) or not all(map(torch.is_tensor, loaded.values())):
        raise ValueError(f"{path} is no state_dict: save net.state_dict(), not the network")
    return {name: tensor.numpy() for name, tensor in loaded.items()}


def write(path: Path, arrays: Arrays) -> None:
    """Writes tensors by name, whole or not at all.

    Raises:
        ValueError: if the file's format is another.
        OSError: if it cannot be written.
        ImportError: if it takes PyTorch, and that is not installed.
    """
    _check_format(path)
    if path.suffix == ".safetensors":
        content = safetensors.numpy.save(dict(arrays))
        write_atomically(path, lambda file: file.write(content))
        return
    torch = _torch()
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    write_atomically(path, lambda file: torch.save(tensors, file))


def convert(source: Path, target: Path, trial: str | None = None) -> str:
    """From PyTorch's names to ours if that is what `source` has, and otherwise from ours to its.

    Args:
        source: a file, or the workdir of a run.
        target: the file to write.
        trial: of a workdir, whose parameters; the first by default.

    Returns:
        What was done, in a sentence.

    Raises:
        ValueError: if `source` is no `Net`, or a file's format is not known.
        OSError: if a file cannot be read or written.
        ImportError: if a file takes PyTorch, and that is not installed.
    """
    _check_format(target)
    if source.is_dir():
        trained = checkpoints.load_trained(str(source), trial)
        write(target, to_state_dict(trained.params))
        return f"{target}: the state_dict of {trained.trial}; {_caveat(trained)}"
    arrays = read(source)
    if any(name.startswith("conv1.") for name in arrays):
        if target.suffix != ".safetensors":
            raise ValueError(f"--to={target}: our parameters are written to .safetensors files")
        params = from_state_dict(arrays)
        flat = {
            f"{layer}.{leaf}": np.asarray(array)
            for layer, leaves in params.items()
            for leaf, array in leaves.items()
        }
        write(target, flat)
        return f"{target}: parameters of LeNet from the state_dict in {source}"
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        layer, _, leaf = name.partition(".")
        grouped.setdefault(layer, {})[leaf] = array
    write(target, to_state_dict(grouped))
    return f"{target}: the state_dict of the parameters in {source}"


def _caveat(trained: checkpoints.Trained) -> str:
    """What a state_dict does not hold of the network that was trained."""
    config, normalization = trained.config, trained.dataset["normalization"]
    told = f"its images are pixels * {normalization['scale']} + {normalization['offset']}"
    if (config.activation, config.pooling) != ("relu", "max"):
        told += f", and its Net has {config.activation} and {config.pooling} pooling"
    return told


def _check_format(path: Path) -> None:
    if path.suffix not in FORMATS:
        raise ValueError(f"{path} must end in one of: {', '.join(FORMATS)}")


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(INSTALL) from error
    return torch


def _path(name: str) -> Path:
    value: Any = flags.FLAGS[name].value
    if not value:
        raise ValueError(f"--{name} is missing: name a .safetensors or .pt file")
    return Path(value)


def main(argv: Sequence[str]) -> None:
    """Converts the files of the command line."""
    try:
        if len(argv) > 1:
            raise ValueError(f"{argv[1]!r} is not a flag; flags are written --name=value")
        print(convert(_path("from"), _path("to"), flags.FLAGS.trial))
    except (OSError, ValueError, ImportError, json.JSONDecodeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    flags.DEFINE_string("from", None, "A .safetensors or .pt file, or the workdir of a run.")
    flags.DEFINE_string("to", None, "The .safetensors or .pt file to write.")
    flags.DEFINE_string("trial", None, "Of a workdir: whose parameters; the first by default.")
    app.call_after_init(lambda: logging.set_verbosity(logging.WARNING))
    app.run(main)
