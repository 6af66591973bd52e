"""PyTorch's ways of training the same network. Importing this needs PyTorch."""

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import nn

from benchmarks.contestants import Contestant, Entry, Outcome, Params, Start, Task, batches
from lenet import codes
from lenet import data as datasets
from lenet.layers import TABLE_1

# As many at a time as ours.
EVALUATION_BATCH = 250

Batch = tuple[torch.Tensor, torch.Tensor]


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


def _squash(x: Float[torch.Tensor, "*shape"]) -> Float[torch.Tensor, "*shape"]:
    return 1.7159 * torch.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    """The sum of 2x2 inputs, times a coefficient, plus a bias, squashed."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((maps, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(maps, 1, 1))

    def forward(
        self, x: Float[torch.Tensor, "batch channel height width"]
    ) -> Float[torch.Tensor, "batch channel half_height half_width"]:
        """Returns the smaller maps."""
        summed = F.avg_pool2d(x, 2, divisor_override=1)
        return _squash(summed * self.coefficient + self.bias)


class MaskedConv2d(nn.Conv2d):
    """A convolution between the maps that Table I connects."""

    def __init__(self) -> None:
        super().__init__(*TABLE_1.shape, 5)
        self.register_buffer("mask", _table_mask())

    def forward(
        self, x: Float[torch.Tensor, "batch channel height width"]
    ) -> Float[torch.Tensor, "batch maps out_height out_width"]:
        """Returns the maps."""
        return F.conv2d(x, self.weight * self.mask, self.bias)


class Network1998(nn.Module):
    """The LeNet-5 of 1998, as one writes it in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = MaskedConv2d()
        self.s4 = Subsampling(16)
        self.c5 = nn.Linear(400, 120)
        self.f6 = nn.Linear(120, 84)
        bitmaps = torch.from_numpy(codes.BITMAPS.reshape(-1, codes.UNITS))
        self.register_buffer("codes", bitmaps, persistent=False)

    def forward(
        self, x: Float[torch.Tensor, "batch channel height width"]
    ) -> Float[torch.Tensor, "batch classes"]:
        """Returns the squared distances to the codes."""
        x = self.s2(_squash(self.c1(x)))
        x = self.s4(_squash(self.c3(x)))
        x = torch.flatten(x, 1)
        x = _squash(self.c5(x))
        x = _squash(self.f6(x))
        return ((x[:, None] - self.codes) ** 2).sum(-1)


def _table_mask() -> torch.Tensor:
    return torch.from_numpy(TABLE_1.T[:, :, None, None].astype(np.float32))


def _equation_9(
    rbf_j: float,
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def loss(distances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        wanted = distances.gather(1, labels[:, None])[:, 0]
        rubbish = distances.new_full((len(distances), 1), rbf_j)
        every = torch.cat([distances, rubbish], dim=1)
        return (wanted + torch.logsumexp(-every, dim=1)).mean()

    return loss


class Setup(NamedTuple):
    """What a task is in PyTorch.

    Attributes:
        network: to be trained.
        optimizer: made from parameters and further arguments.
        loss: the mean, of outputs and labels.
        deliver: which images to present -> images and labels, batch by batch.
    """

    network: nn.Module
    optimizer: Callable[..., torch.optim.Optimizer]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    deliver: Callable[[Iterable[np.ndarray]], Iterable[Batch]]


def _set_up(task: Task) -> Setup:
    pixels, labels = _tensors(task)
    rate = task.config.learning_rate
    if task.network == "lenet5_1998":
        normalized = datasets.normalize(task.pixels, task.recipe.affine).transpose(0, 3, 1, 2)
        images = torch.from_numpy(np.ascontiguousarray(normalized, np.float32)).to(pixels.device)

        def gather(chosen: Iterable[np.ndarray]) -> list[Batch]:
            # A list, ready before the clock starts.
            indices = [_index(task, index) for index in chosen]
            return [(images[index], labels[index]) for index in indices]

        loss = _equation_9(task.config.rbf_j)
        sgd = functools.partial(torch.optim.SGD, lr=rate)
        return Setup(Network1998().to(pixels.device), sgd, loss, gather)

    def convert(chosen: Iterable[np.ndarray]) -> Iterable[Batch]:
        # One by one, while the clock runs.
        for index in (_index(task, each) for each in chosen):
            yield pixels[index].float().div_(255), labels[index]

    adam = functools.partial(torch.optim.Adam, lr=rate)
    return Setup(Network().to(pixels.device), adam, F.cross_entropy, convert)


def eager(threads: int = 0) -> Contestant:
    """One operation after another, the data in memory, without a DataLoader.

    Args:
        threads: how many it uses; those of the task, if there are none.
    """
    name = f"PyTorch, {threads} thread{'s' * (threads > 1)}" if threads else "PyTorch eager"
    return Contestant(name, 1, lambda task: _make_single(task, threads=threads))


def compiled() -> Contestant:
    """The same network through `torch.compile`, which needs a C++ compiler."""
    return Contestant("PyTorch compile", 1, lambda task: _make_single(task, compiled=True))


def graphed() -> Contestant:
    """Eager's step as a CUDA graph: recorded once, then one launch a step. On a GPU only."""
    return Contestant("PyTorch CUDA graph", 1, _make_graphed)


def ensemble(members: int) -> Contestant:
    """All members as one network by `torch.func`: `vmap` over stacked parameters."""

    def make(task: Task) -> Entry:
        return _make_ensemble(task, members)

    return Contestant(f"PyTorch vmap, {members} models", members, make)


def _device(task: Task) -> torch.device:
    return torch.device("cuda" if task.platform == "gpu" else "cpu")


def _index(task: Task, chosen: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(chosen, np.int64)).to(_device(task))


def _clock(task: Task) -> float:
    """The time, in seconds, when all that was asked of the device is done."""
    if task.platform == "gpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def _tensors(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, channels first, as bytes; and labels."""
    torch.set_num_threads(task.threads)
    # All in float32, as ours: without this, convolutions on a GPU round to TF32.
    torch.backends.cudnn.allow_tf32 = False
    pixels = torch.from_numpy(np.ascontiguousarray(task.pixels.transpose(0, 3, 1, 2)))
    labels = torch.from_numpy(task.labels.astype(np.int64))
    return pixels.to(_device(task)), labels.to(_device(task))


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
    network = Network().to(pixels.device)
    stacked = {
        name: torch.stack([value] * members).to(pixels.device).requires_grad_()
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
        index = _index(task, chosen)
        images = pixels[index].float().div_(255)
        optimizer.zero_grad(set_to_none=True)
        losses = torch.func.vmap(loss_of)(stacked, images, labels[index])
        losses.sum().backward()
        optimizer.step()
        return losses

    def take_first(start: Start) -> Outcome:
        begin(start.params)
        losses = step(np.stack([start.chosen] * members))
        each = [
            _from_torch({name: value[member].detach() for name, value in stacked.items()})
            for member in range(members)
        ]
        params = jax.tree.map(lambda *leaves: np.concatenate(leaves), *each)
        return Outcome(losses.detach().cpu().numpy(), params)

    def train(count: int) -> float:
        steps = -(-count // task.recipe.batch_size)
        began = _clock(task)
        for _ in range(steps):
            step(np.stack([next(order) for order in orders]))
        return (_clock(task) - began) * count / (steps * task.recipe.batch_size)

    return Entry(take_first, train)


def _make_single(task: Task, compiled: bool = False, threads: int = 0) -> Entry:
    network, create_optimizer, loss_of, deliver = _set_up(task)
    forward = torch.compile(network) if compiled else network
    optimizer = create_optimizer(network.parameters())
    order = batches(task)

    def begin(params: Params) -> None:
        network.load_state_dict(_to_torch(params))
        optimizer.state.clear()

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(forward(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    def take_first(start: Start) -> Outcome:
        begin(start.params)
        [batch] = deliver([start.chosen])
        loss = step(*batch)
        return Outcome(loss.detach().cpu().numpy()[None], _from_torch(network.state_dict()))

    def train(count: int) -> float:
        torch.set_num_threads(threads or task.threads)
        steps = -(-count // task.recipe.batch_size)
        presented = deliver(itertools.islice(order, steps))
        began = _clock(task)
        for images, labels in presented:
            step(images, labels)
        return (_clock(task) - began) * count / (steps * task.recipe.batch_size)

    begin(task.start.params)
    return Entry(take_first, train)


def _make_graphed(task: Task) -> Entry:
    pixels, labels = _tensors(task)
    network, create_optimizer, loss_of, _ = _set_up(task)
    # What capturing needs: its count of steps lies on the GPU.
    optimizer = create_optimizer(network.parameters(), capturable=True)
    # A graph reads and writes the same memory every time: the index is copied into its place.
    place = _index(task, task.start.chosen)
    order = batches(task)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(network(pixels[place].float().div_(255)), labels[place])
        loss.backward()
        optimizer.step()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # What is chosen or allocated at the first call must not be captured.
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def begin(params: Params) -> None:
        network.load_state_dict(_to_torch(params))
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()

    def take_first(start: Start) -> Outcome:
        begin(start.params)
        place.copy_(_index(task, start.chosen))
        graph.replay()
        return Outcome(loss.detach().cpu().numpy()[None], _from_torch(network.state_dict()))

    def train(count: int) -> float:
        steps = -(-count // task.recipe.batch_size)
        began = _clock(task)
        for chosen in itertools.islice(order, steps):
            place.copy_(_index(task, chosen))
            graph.replay()
        return (_clock(task) - began) * count / (steps * task.recipe.batch_size)

    begin(task.start.params)
    return Entry(take_first, train)


def _to_torch(params: Params) -> dict[str, torch.Tensor]:
    """Our parameters as a `state_dict`.

    Our kernels are 5 5 in out, 5 5 connection and in out; PyTorch's are out in 5 5, the same beside
    a mask, and out in. Those of subsampling are maps, PyTorch's maps 1 1.
    """
    state = {}
    for layer, leaves in params.items():
        for leaf, value in leaves.items():
            kernel = np.array(value)
            if leaf == "kernel":
                if kernel.ndim == 3:
                    state[f"{layer}.mask"] = _table_mask()
                    kernel = _unpacked(kernel)
                turned = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
                state[f"{layer}.weight"] = torch.from_numpy(turned.copy())
            else:
                turned = kernel[:, None, None] if "coefficient" in leaves else kernel
                state[f"{layer}.{leaf}"] = torch.from_numpy(turned.copy())
    return state


def _unpacked(connected: Float[np.ndarray, "5 5 connection"]) -> Float[np.ndarray, "5 5 in out"]:
    kernel = np.zeros((5, 5, *TABLE_1.shape), np.float32)
    kernel[:, :, TABLE_1] = connected
    return kernel


def _from_torch(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    params: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.partition(".")
        if leaf == "mask":
            continue
        value = tensor.cpu().numpy().copy()
        if leaf == "weight":
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
            value = value[:, :, TABLE_1] if f"{layer}.mask" in tensors else value
        elif value.ndim == 3:
            value = value[:, 0, 0]
        params.setdefault(layer, {})["kernel" if leaf == "weight" else leaf] = value[None]
    return params
