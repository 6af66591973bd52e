"""How many of a network's parameters are in its fully connected layers: counted, not trained."""

import dataclasses
import statistics

from lenet import figures, model
from lenet.claims import rules
from lenet.claims.claim import Claim, Context, Finding
from lenet.model import LeNet
from lenet.templates.document import Table, plot
from lenet.templates.run import percent

SAID = 0.8
MARGIN = 0.05


@dataclasses.dataclass(frozen=True)
class Published:
    """A network by the shapes of its layers, as published.

    Attributes:
        name: of the network, with its source.
        convolutions: of each layer (maps out, maps that each sees, side of the kernel).
        connected: of each fully connected layer (units out, units in).
    """

    name: str
    convolutions: tuple[tuple[int, int, int], ...]
    connected: tuple[tuple[int, int], ...]

    @property
    def parameters(self) -> tuple[int, int]:
        """Weights and biases: of the convolutions, of the fully connected layers."""
        return (
            sum(out * (seen * side**2 + 1) for out, seen, side in self.convolutions),
            sum(out * (units + 1) for out, units in self.connected),
        )


# Krizhevsky, Sutskever, Hinton 2012, section 3.5: layers 2, 4 and 5 see the half of the maps that
# is on their GPU. Simonyan, Zisserman 2014, table 1, configuration D.
ALEXNET = Published(
    "AlexNet (2012)",
    ((96, 3, 11), (256, 48, 5), (384, 256, 3), (384, 192, 3), (256, 192, 3)),
    ((4096, 256 * 6 * 6), (4096, 4096), (1000, 4096)),
)
VGG_16 = Published(
    "VGG-16 (2014)",
    (
        (64, 3, 3),
        (64, 64, 3),
        (128, 64, 3),
        (128, 128, 3),
        (256, 128, 3),
        (256, 256, 3),
        (256, 256, 3),
        (512, 256, 3),
        *[(512, 512, 3)] * 5,
    ),
    ((4096, 512 * 7 * 7), (4096, 4096), (1000, 4096)),
)
# Name, network and shape of its images: those of the configs of this project.
OURS: tuple[tuple[str, LeNet, tuple[int, int, int]], ...] = (
    ("LeNet, ReLU and max", LeNet(), (32, 32, 1)),
    ("the note's Net, on colour images", LeNet(), (32, 32, 3)),
    (
        "LeNet-5 of 1998",
        LeNet(activation="scaled_tanh", pooling="subsampling", connections="table1", head="rbf"),
        (32, 32, 1),
    ),
    ("LeNet, strided convolutions as pooling", LeNet(pooling="stride"), (32, 32, 1)),
    ("LeNet without pooling", LeNet(pooling="none"), (32, 32, 1)),
    ("LeNet with global average pooling", LeNet(head="gap"), (32, 32, 1)),
    (
        "global average pooling, twice the maps",
        LeNet(head="gap", widths=(12, 32, 120, 84)),
        (32, 32, 1),
    ),
)


def counts() -> dict[str, tuple[int, int]]:
    """Of each network its parameters outside and inside of fully connected layers."""
    found = {}
    for name, network, shape in OURS:
        summary = model.summarize(network, shape)
        connected = round(summary.fully_connected_share * summary.parameters)
        found[name] = (summary.parameters - connected, connected)
    return found | {each.name: each.parameters for each in (ALEXNET, VGG_16)}


def examine(context: Context) -> tuple[Finding, ...]:
    """Shares, exact, against the note's 80 %."""
    found = counts()
    shares = {name: inside / (outside + inside) for name, (outside, inside) in found.items()}
    of_fc = {name: share for name, share in shares.items() if "global average" not in name}
    middle = statistics.median(of_fc.values())
    least, most = min(of_fc, key=of_fc.__getitem__), max(of_fc, key=of_fc.__getitem__)
    picture = plot(
        "parameters-shares",
        figures.shares(
            list(shares),
            list(shares.values()),
            title=f"Fully connected layers hold {percent(of_fc[least], 0)} or more, not about 80 %",
            xlabel="share of the parameters (%)",
            reference=("the note: about 80 %", SAID),
        ),
        "Shares of the parameters in fully connected layers, a bar a network",
        "Exact counts. With global average pooling the output layer alone is fully connected.",
    )
    table = Table(
        ("network", "parameters", "in fully connected layers", "share"),
        tuple(
            (name, f"{outside + inside:,}", f"{inside:,}", percent(shares[name], 1))
            for name, (outside, inside) in found.items()
        ),
    )
    told = (
        f"From {percent(of_fc[least], 1)} ({least}) to {percent(of_fc[most], 1)} ({most}), over "
        f"{len(of_fc)} networks with hidden layers that are fully connected."
    )
    return (
        Finding(
            "Most parameters, 80 % and more, are in fully connected layers.",
            "Supported if the share is at least 0.8 in every network here whose head is fully "
            "connected; the counts are exact, so that there is no interval.",
            rules.exactly(min(of_fc.values()) >= SAID),
            told,
            (picture, table),
        ),
        Finding(
            "The share is about 80 %.",
            f"Supported if the middle one of these shares is within {MARGIN:g} of 0.8.",
            rules.exactly(abs(middle - SAID) <= MARGIN),
            f"The median is {percent(middle, 1)}: the note's number is too low for every one of "
            "these networks.",
        ),
    )


CLAIM = Claim(
    name="parameters",
    title="Fully connected layers hold about 80 % of the parameters",
    statement="Fully connected layers are redundant: they alone hold about 80 % of a network's "
    "parameters.",
    original="「由于目前全连接层参数冗余(仅全连接层参数就可占整个神经网络参数80%左右)」",
    method="Counted from the shapes of the layers: the networks of this project's configs, and "
    "AlexNet and VGG-16 by their published shapes. Output layers count as fully connected.",
    examine=examine,
)
