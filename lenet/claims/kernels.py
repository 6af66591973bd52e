"""What a kernel and a feature map are: shown on a trained network, and checked by hand."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lenet import data, figures, layers, model, report
from lenet.checkpoints import Trained
from lenet.claims import rules
from lenet.claims.claim import Claim, Context, Finding, Studies
from lenet.model import LeNet
from lenet.registry import lookup
from lenet.templates.document import plot

TOLERANCE = 1e-4


def studies(context: Context) -> Studies:
    """One network to look at."""
    quick = context.quick
    return {"kernels": context.study(num_epochs=1 if quick else 3, learning_rate=4e-3)}


def slid(
    image: Float[np.ndarray, "height width channel"],
    kernel: Float[np.ndarray, "size size channel"],
    bias: float,
) -> Float[np.ndarray, "rows columns"]:
    """A kernel slid over an image, window by window: at each place the sum of their products."""
    size = kernel.shape[0]
    rows, columns = (side - size + 1 for side in image.shape[:2])
    found = np.zeros((rows, columns))
    for row in range(rows):
        for column in range(columns):
            window = image[row : row + size, column : column + size]
            found[row, column] = (window * kernel).sum() + bias
    return found


def influence(trained: Trained, image: Float[np.ndarray, "height width channel"]) -> np.ndarray:
    """Which pixels change the unit of c1 in row 10, column 12, when each is changed by itself."""
    height, width, _ = image.shape
    changed = np.repeat(image[None], height * width, axis=0)
    places = np.arange(height * width)
    changed[places, places // width, places % width] += 1
    outputs = np.asarray(_c1(trained, changed)[:, 10, 12])
    unchanged = np.asarray(_c1(trained, image[None])[:, 10, 12])
    return (np.abs(outputs - unchanged).max(axis=0) > 0).reshape(height, width)


def _c1(trained: Trained, images: np.ndarray) -> np.ndarray:
    """c1 before its activation: map height width image."""
    kernel, bias = trained.params["c1"]["kernel"], trained.params["c1"]["bias"]
    phases = layers.convolve_lax(jnp.asarray(images.transpose(3, 1, 2, 0)), kernel, bias)
    return np.asarray(layers.merge_phases(phases))


def examine(context: Context) -> tuple[Finding, ...]:
    """A kernel slid by hand, the field of a unit, the depth of a kernel."""
    run = context.run("kernels")
    (trained,) = context.trained("kernels")
    dataset = data.load(run.config["dataset"], run.config["data_dir"] or None)
    image = dataset.test_images[0]
    maps = report.feature_maps(trained, image)
    pixels = np.asarray(trained.shown(image[None]))[0]
    kernels = np.asarray(trained.params["c1"]["kernel"])
    biases = np.asarray(trained.params["c1"]["bias"])
    activate = lookup(layers.ACTIVATIONS, trained.model.activation, "activation")
    by_hand = np.stack(
        [
            np.asarray(activate(jnp.asarray(slid(pixels, kernels[..., each], float(biases[each])))))
            for each in range(kernels.shape[-1])
        ]
    )
    difference = float(np.abs(by_hand - maps["c1"]).max())
    seen = influence(trained, pixels)
    rows, columns = np.nonzero(seen)
    inside = (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max()))
    depths = {channels: _depth(LeNet(), (32, 32, channels)) for channels in (1, 3)}
    field = model.summarize(LeNet(), (32, 32, 1)).layers[0].receptive_field
    drawn = figures.portrait(
        kernels, maps, title="The kernels of c1, and the feature maps of one image"
    )
    return (
        Finding(
            "A kernel slides over the whole image, and what it gives is a feature map.",
            "Supported if each of the maps of c1 agrees, to "
            f"{TOLERANCE:g}, with its kernel slid over the image window by window in a loop.",
            rules.exactly(difference < TOLERANCE),
            f"The greatest difference is {difference:.1e}, over {len(by_hand)} maps.",
            (
                plot(
                    "kernels-portrait",
                    drawn,
                    "Kernels and feature maps of a trained LeNet",
                    "Blue is positive, orange negative, white zero. `python -m lenet.look "
                    "--workdir=... digit.png` makes a page of this for any trained network and any "
                    "picture, with the receptive fields and what the units of f6 respond to.",
                ),
            ),
        ),
        Finding(
            "The window is the receptive field: what lies outside of it changes nothing.",
            "Supported if, of all pixels changed one by one, exactly those of the 5x5 window of "
            "the unit of c1 in row 10 and column 12 change it.",
            rules.exactly(inside == (10, 14, 12, 16) and int(seen.sum()) == field**2),
            f"{int(seen.sum())} pixels do, rows {inside[0]} to {inside[1]}, columns {inside[2]} to "
            f"{inside[3]}.",
        ),
        Finding(
            "The depth of a kernel is that of its input.",
            "Supported if the kernels of c1 have as many channels as the images, for grey and for "
            "colour images.",
            rules.exactly(all(channels == depth for channels, depth in depths.items())),
            "; ".join(
                f"{channels} channel{'s' if channels > 1 else ''}: kernels 5x5x{depth}"
                for channels, depth in depths.items()
            )
            + ".",
        ),
    )


def _depth(network: LeNet, shape: tuple[int, int, int]) -> int:
    """How many channels the kernels of c1 have, by its parameters' count."""
    first = model.summarize(network, shape).layers[0]
    return (first.parameters // first.output_shape[-1] - 1) // layers.KERNEL_SIZE**2


CLAIM = Claim(
    name="kernels",
    title="What a kernel and a feature map are",
    statement="A kernel is a small window, usually 3x3 or 5x5, that slides over the whole image; "
    "its window is the receptive field, its numbers are the weights, its depth is that of the "
    "input, and what it gives is a feature map.",
    original="「kernel 一般为 3*3 或者 5*5 大小的窗口，在整个图像进行滑动。这个窗口区域就是 CNN "
    "的感受野(receptive field)……其中 kernel 的depth对应输入图像的depth。filter的结果对应 "
    "activetion map 或者feature map。」",
    method="A LeNet is trained on MNIST; its first layer is computed again by a loop over windows, "
    "and every pixel of an image is changed by itself to see which units it reaches.",
    examine=examine,
    studies=studies,
)
