"""PyTorch's ways of training the same network. Importing this needs PyTorch."""

import itertools
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import nn

from benchmarks.contestants import Contestant, Entry, Outcome, Params, Start, Task, batches


class Network(nn.Module):
    """The network as PyTorch's tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.c3 = nn.Conv2d(6, 16, 5)
        self.c5 = nn.Linear(400, 120)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, 10)

    def forward(
        self, x: Float[torch.Tensor, "batch channel height width"]
    ) -> Float[torch.Tensor, "batch classes"]:
        """Returns the logits."""
        x = F.max_pool2d(F.relu(self.c1(x)), 2)
        x = F.max_pool2d(F.relu(self.c3(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.c5(x))
        x = F.relu(self.f6(x))
        return self.output(x)


def eager() -> Contestant:
    """One operation after another, the data as bytes in memory, without a DataLoader."""
    return Contestant("PyTorch eager", 1, _make_eager)


def _make_eager(task: Task) -> Entry:
    torch.set_num_threads(task.threads)
    pixels = torch.from_numpy(np.ascontiguousarray(task.pixels.transpose(0, 3, 1, 2)))
    labels = torch.from_numpy(task.labels.astype(np.int64))
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=task.config.learning_rate)
    order = batches(task)

    def begin(params: Params) -> None:
        network.load_state_dict(_to_torch(params))
        optimizer.state.clear()

    def step(chosen: np.ndarray) -> torch.Tensor:
        index = torch.from_numpy(chosen)
        images = pixels[index].float().div_(255)
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(network(images), labels[index])
        loss.backward()
        optimizer.step()
        return loss

    def take_first(start: Start) -> Outcome:
        begin(start.params)
        loss = step(start.chosen.astype(np.int64))
        return Outcome(loss.detach().numpy()[None], _from_torch(network))

    def train(count: int) -> float:
        steps = -(-count // task.recipe.batch_size)
        began = time.perf_counter()
        for chosen in itertools.islice(order, steps):
            step(chosen)
        return (time.perf_counter() - began) * count / (steps * task.recipe.batch_size)

    begin(task.start.params)
    return Entry(take_first, train)


def _to_torch(params: Params) -> dict[str, torch.Tensor]:
    """Our kernels are 5 5 in out and in out, PyTorch's are out in 5 5 and out in."""
    state = {}
    for layer, leaves in params.items():
        kernel = np.array(leaves["kernel"])
        turned = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        state[f"{layer}.weight"] = torch.from_numpy(turned.copy())
        state[f"{layer}.bias"] = torch.from_numpy(np.array(leaves["bias"]))
    return state


def _from_torch(network: Network) -> dict[str, dict[str, Any]]:
    state = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    params = {}
    for layer, _ in network.named_children():
        weight = state[f"{layer}.weight"]
        turned = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        params[layer] = {"kernel": turned[None], "bias": state[f"{layer}.bias"][None]}
    return params
