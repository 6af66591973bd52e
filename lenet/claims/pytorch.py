"""`view(-1, 16 * 5 * 5)` and the note's `Net`: the same function, step by step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from lenet.claims import rules
from lenet.claims.claim import Claim, Context, Finding
from lenet.interop import torch as interop
from lenet.model import LeNet, init_params
from lenet.optimizers import Hyperparameters
from lenet.templates.document import Block, Code, Table
from lenet.train import create_train_state, train_step

TOLERANCE = 1e-5
STEPS, RATE, BATCH = 100, 0.02, 32
SHAPE = (32, 32, 3)

StateDict = dict[str, Any]


def net(state_dict: StateDict, images: Float[Array, "batch channel height width"]) -> Array:
    """The note's `Net` written out with `lax`, channels first, weights as PyTorch has them."""

    def layer(x: Array, name: str) -> Array:
        layout = ("NCHW", "OIHW", "NCHW")
        weight, bias = state_dict[f"{name}.weight"], state_dict[f"{name}.bias"]
        convolved = lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=layout)
        active = jnp.maximum(convolved + bias[None, :, None, None], 0)
        return lax.reduce_window(active, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    def connect(x: Array, name: str) -> Array:
        return x @ state_dict[f"{name}.weight"].T + state_dict[f"{name}.bias"][None]

    x = layer(layer(images, "conv1"), "conv2")
    x = x.reshape(-1, 16 * 5 * 5)
    for name in ("fc1", "fc2"):
        x = jnp.maximum(connect(x, name), 0)
    return connect(x, "fc3")


def batches() -> tuple[
    Float[np.ndarray, "step batch channel height width"], Int[np.ndarray, "step batch"]
]:
    """Ten patterns in noise and their labels, the same every time; every batch is another."""
    random = np.random.default_rng(0)
    patterns = random.normal(size=(10, 3, 32, 32))
    labels = random.integers(0, 10, (STEPS, BATCH))
    noise = random.normal(size=(STEPS, BATCH, 3, 32, 32))
    return (0.5 * patterns[labels] + 0.5 * noise).astype(np.float32), labels


def our_losses(state_dict: StateDict) -> tuple[np.ndarray, np.ndarray]:
    """Our logits of the first batch, and our losses of the steps of SGD, from these weights."""
    images, labels = batches()
    state = create_train_state(
        jax.random.key(0), LeNet(), SHAPE, optimizer="sgd", total_steps=STEPS
    ).replace(params=interop.from_state_dict(state_dict))
    channels_last = images.transpose(0, 1, 3, 4, 2)
    logits = state.model.apply({"params": state.params}, jnp.asarray(channels_last[0]))
    step, losses = jax.jit(train_step), []
    for image, label in zip(channels_last, labels, strict=True):
        batch = {"image": jnp.asarray(image), "label": jnp.asarray(label)}
        state, metrics = step(state, batch, Hyperparameters(learning_rate=RATE))
        losses.append(float(metrics["loss"]) / BATCH)
    return np.asarray(logits), np.array(losses)


def reference_losses(state_dict: StateDict) -> tuple[np.ndarray, np.ndarray]:
    """The same by `net`."""
    images, labels = batches()
    weights = {name: jnp.asarray(value) for name, value in state_dict.items()}

    @jax.jit
    def step(weights: StateDict, image: Array, label: Array) -> tuple[StateDict, Array]:
        def loss(weights: StateDict) -> Array:
            found = optax.softmax_cross_entropy_with_integer_labels(net(weights, image), label)
            return found.mean()

        value, gradients = jax.value_and_grad(loss)(weights)
        return jax.tree.map(lambda w, g: w - RATE * g, weights, gradients), value

    logits, losses = net(weights, jnp.asarray(images[0])), []
    for image, label in zip(images, labels, strict=True):
        weights, value = step(weights, jnp.asarray(image), jnp.asarray(label))
        losses.append(float(value))
    return np.asarray(logits), np.array(losses)


def torch_losses(torch: Any, state_dict: StateDict) -> tuple[np.ndarray, np.ndarray]:
    """The same by PyTorch, written as the note writes it."""
    from torch import nn
    from torch.nn import functional

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 6, 5)
            self.pool = nn.MaxPool2d(2, 2)
            self.conv2 = nn.Conv2d(6, 16, 5)
            self.fc1 = nn.Linear(16 * 5 * 5, 120)
            self.fc2 = nn.Linear(120, 84)
            self.fc3 = nn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            x = self.pool(functional.relu(self.conv1(x)))
            x = self.pool(functional.relu(self.conv2(x)))
            x = x.view(-1, 16 * 5 * 5)
            x = functional.relu(self.fc1(x))
            return self.fc3(functional.relu(self.fc2(x)))

    images, labels = batches()
    network = Net()
    network.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state_dict.items()})
    logits = network(torch.from_numpy(images[0])).detach().numpy()
    optimizer, losses = torch.optim.SGD(network.parameters(), lr=RATE), []
    for image, label in zip(images, labels, strict=True):
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(torch.from_numpy(image)), torch.from_numpy(label))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return logits, np.array(losses)


def examine(context: Context) -> tuple[Finding, ...]:
    """Logits and losses beside each other, the order of flattening, the note's example."""
    torch = _torch()
    state_dict = interop.to_state_dict(init_params(LeNet(), jax.random.key(1), SHAPE))
    with jax.default_matmul_precision("highest"):
        ours, our_curve = our_losses(state_dict)
        others = {"written out in lax": reference_losses(state_dict)}
    if torch is not None:
        others[f"PyTorch {torch.__version__}"] = torch_losses(torch, state_dict)
    rows = tuple(
        (
            name,
            f"{np.abs(logits - ours).max():.1e}",
            f"{np.abs(curve - our_curve)[:10].max():.1e}",
            f"{np.abs(curve - our_curve).max():.1e}",
        )
        for name, (logits, curve) in others.items()
    )
    worst = max(np.abs(logits - ours).max() for logits, _ in others.values())
    drift = max(np.abs(curve - our_curve).max() for _, curve in others.values())
    header = ("Net", "logits", "losses of 10 steps", f"losses of {STEPS} steps")
    return (
        Finding(
            "The note's Net is our LeNet with ReLU and max pooling.",
            f"Supported if, with the same weights, every logit agrees to {TOLERANCE:g}, and so "
            f"does the loss of each of {STEPS} steps of SGD to {100 * TOLERANCE:g}.",
            rules.exactly(bool(worst < TOLERANCE and drift < 100 * TOLERANCE)),
            f"Greatest differences: logits {worst:.1e}, losses {drift:.1e}"
            + ("." if torch is not None else "; PyTorch is not installed here.")
            + " `python -m lenet.interop.torch` turns the weights of the one into those of the "
            "other.",
            (Table(header, rows),),
        ),
        Finding(
            "`x.view(-1, 16 * 5 * 5)` flattens the maps channel by channel, each row by row.",
            "Supported if the row of the pixel (map, row, column) is 25 map + 5 row + column for "
            "every pixel, in our network as in the definition of `view`.",
            rules.exactly(_order_is_by_channel()),
            "So no weight of `fc1` changes its place on the way from one to the other.",
        ),
        _example(torch),
    )


def _order_is_by_channel() -> bool:
    """Whether c5 multiplies the pixel (map, row, column) by row 25 map + 5 row + column."""
    images = jnp.asarray(batches()[0][0].transpose(0, 2, 3, 1))
    params = init_params(LeNet(), jax.random.key(0), SHAPE)
    with jax.default_matmul_precision("highest"):
        _, captured = LeNet().apply(
            {"params": params}, images, capture_intermediates=True, mutable=["intermediates"]
        )
    (maps,), (c5,) = (captured["intermediates"][name]["__call__"] for name in ("s4", "c5"))
    kernel, expected = np.asarray(params["c5"]["kernel"]), np.zeros((120, BATCH))
    for number, row, column in np.ndindex(16, 5, 5):
        weights = kernel[25 * number + 5 * row + column]
        expected += weights[:, None] * np.asarray(maps[number, row, column])
    return bool(np.allclose(np.asarray(c5), expected, atol=1e-4))


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def _example(torch: Any) -> Finding:
    message = ""
    if torch is None:
        verdict, told = rules.UNDECIDED, "PyTorch is not installed here, so that it was not run."
    else:
        try:
            torch.tensor(1, 16)
            verdict, told = rules.SUPPORTED, "It runs."
        except TypeError as error:
            message = str(error).splitlines()[0]
            verdict, told = rules.REFUTED, f"It raises TypeError: `{message}`."
    blocks: tuple[Block, ...] = (
        Code("import torch\n\na = torch.arange(16)\na = a.view(4, 4)\nb = a.view(-1, 8)", "python"),
    )
    return Finding(
        "The note's example, `torch.tensor(1, 16)` and then `view(4, 4)`, runs.",
        "Supported if it runs in PyTorch, refuted if it raises.",
        verdict,
        f"{told} `torch.tensor` takes the data alone; a tensor of 16 numbers to be seen as 4 by 4 "
        "is made by `torch.arange(16)`, and -1 leaves a side to be computed:",
        blocks,
    )


CLAIM = Claim(
    name="pytorch",
    title="The note's PyTorch Net, and what view does",
    statement="LeNet in PyTorch is the note's `Net`; `view` is a reshape of a tensor, in which -1 "
    "stands for what can be computed from the rest.",
    original="「view相当于对一个tensor的reshape」「**-1** "
    "参数的作用，在不知道行有多少，但是知道列的情况下，可以用-1代替」",
    method="One set of weights in three programs: our LeNet, the note's `Net` written out anew "
    "with `lax` in PyTorch's order of axes, and where PyTorch is installed the note's own class. "
    "Logits of a batch and the losses of 100 steps of SGD, on patterns in noise, are compared.",
    examine=examine,
)
