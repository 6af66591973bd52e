"""PyTorch's ways of training the same network. Importing this needs PyTorch."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import nn

from benchmarks.contestants import Contestant, Entry, Outcome, Params, Start, Task, batches

# As many at a time as ours.
EVALUATION_BATCH = 250


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
    return Contestant("PyTorch eager", 1, lambda task: _make_single(task, compiled=False))


def compiled() -> Contestant:
    """The same network through `torch.compile`, which needs a C++ compiler."""
    return Contestant("PyTorch compile", 1, lambda task: _make_single(task, compiled=True))


def ensemble(members: int) -> Contestant:
    """All members as one network by `torch.func`: `vmap` over stacked parameters."""

    def make(task: Task) -> Entry:
        return _make_ensemble(task, members)

    return Contestant(f"PyTorch vmap, {members} models", members, make)


def _tensors(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, channels first, as bytes; and labels."""
    torch.set_num_threads(task.threads)
    pixels = torch.from_numpy(np.ascontiguousarray(task.pixels.transpose(0, 3, 1, 2)))
    return pixels, torch.from_numpy(task.labels.astype(np.int64))


def classifier(task: Task, each: Sequence[Params], count: int) -> Callable[[], np.ndarray]:
    """Gives the class of each of the first images by each model, one model after another."""
    pixels, _ = _tensors(task)
    networks = []
    for params in each:
        network = Network().eval()
        network.load_state_dict(_to_torch(params))
        networks.append(network)

    @torch.inference_mode()
    def classify() -> np.ndarray:
        found = np.empty((len(networks), count), np.int64)
        for member, network in enumerate(networks):
            for start in range(0, count, EVALUATION_BATCH):
                images = pixels[start : min(start + EVALUATION_BATCH, count)].float().div_(255)
                classes = network(images).argmax(dim=1).numpy()
                found[member, start : start + len(classes)] = classes
        return found

    return classify


def _make_ensemble(task: Task, members: int) -> Entry:
    pixels, labels = _tensors(task)
    network = Network()
    stacked = {
        name: torch.stack([value] * members).requires_grad_()
        for name, value in _to_torch(task.start.params).items()
    }
    optimizer = torch.optim.Adam(stacked.values(), lr=task.config.learning_rate)
    orders = [batches(task, seed) for seed in range(members)]

    def loss_of(
        params: dict[str, torch.Tensor], images: torch.Tensor, wanted: torch.Tensor
    ) -> torch.Tensor:
        return F.cross_entropy(torch.func.functional_call(network, params, (images,)), wanted)

    def begin(params: Params) -> None:
        with torch.no_grad():
            for name, value in _to_torch(params).items():
                stacked[name].copy_(value.expand_as(stacked[name]))
        optimizer.state.clear()

    def step(chosen: np.ndarray) -> torch.Tensor:
        index = torch.from_numpy(chosen)
        images = pixels[index].float().div_(255)
        optimizer.zero_grad(set_to_none=True)
        losses = torch.func.vmap(loss_of)(stacked, images, labels[index])
        losses.sum().backward()
        optimizer.step()
        return losses

    def take_first(start: Start) -> Outcome:
        begin(start.params)
        losses = step(np.stack([start.chosen.astype(np.int64)] * members))
        each = [
            _from_torch({name: value[member].detach() for name, value in stacked.items()})
            for member in range(members)
        ]
        params = jax.tree.map(lambda *leaves: np.concatenate(leaves), *each)
        return Outcome(losses.detach().numpy(), params)

    def train(count: int) -> float:
        steps = -(-count // task.recipe.batch_size)
        began = time.perf_counter()
        for _ in range(steps):
            step(np.stack([next(order) for order in orders]))
        return (time.perf_counter() - began) * count / (steps * task.recipe.batch_size)

    return Entry(take_first, train)


def _make_single(task: Task, compiled: bool) -> Entry:
    pixels, labels = _tensors(task)
    network = Network()
    forward = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), lr=task.config.learning_rate)
    order = batches(task)

    def begin(params: Params) -> None:
        network.load_state_dict(_to_torch(params))
        optimizer.state.clear()

    def step(chosen: np.ndarray) -> torch.Tensor:
        index = torch.from_numpy(chosen)
        images = pixels[index].float().div_(255)
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(forward(images), labels[index])
        loss.backward()
        optimizer.step()
        return loss

    def take_first(start: Start) -> Outcome:
        begin(start.params)
        loss = step(start.chosen.astype(np.int64))
        return Outcome(loss.detach().numpy()[None], _from_torch(network.state_dict()))

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


def _from_torch(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    state = {name: value.numpy().copy() for name, value in tensors.items()}
    params = {}
    for layer in dict.fromkeys(name.partition(".")[0] for name in state):
        weight = state[f"{layer}.weight"]
        turned = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        params[layer] = {"kernel": turned[None], "bias": state[f"{layer}.bias"][None]}
    return params
