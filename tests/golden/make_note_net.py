"""Writes `note_net.safetensors`: what PyTorch's tutorial `Net` computes.

    pip install torch==2.13.0 && python -m tests.golden.make_note_net

Its weights after initialisation (as float16, which halves the file), images, the logits that they
give, and the losses of 100 steps of SGD.
"""

import pathlib

import numpy as np
import safetensors.numpy
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from tests import fakes

STEPS, RATE = 100, 0.05


class Net(nn.Module):
    """The network of PyTorch's tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits."""
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def rounded(net: Net) -> Net:
    """The network with weights that float16 can hold."""
    net.load_state_dict({k: v.half().float() for k, v in net.state_dict().items()})
    return net


def main() -> None:
    torch.manual_seed(0)
    net = rounded(Net())
    weights = {name: value.numpy().astype(np.float16) for name, value in net.state_dict().items()}
    images, _ = fakes.noisy_batch(0)
    logits = net(torch.from_numpy(images)).detach().numpy()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    losses = []
    for step in range(STEPS):
        pixels, labels = map(torch.from_numpy, fakes.noisy_batch(step))
        optimizer.zero_grad()
        loss = F.cross_entropy(net(pixels), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    content = {**weights, "logits": logits, "losses": np.array(losses, np.float32)}
    path = pathlib.Path(__file__).with_name("note_net.safetensors")
    path.write_bytes(safetensors.numpy.save(content, {"torch": torch.__version__}))


if __name__ == "__main__":
    main()
