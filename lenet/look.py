"""Shows what trained networks make of one picture: kernels, feature maps, receptive fields.

    python -m lenet.look --workdir=runs/lenet5_1998 --workdir=runs/relu_max digit.png

The result is one HTML page that needs no other file. Several workdirs, or several trials of one
workdir (`--trial` as often), stand side by side. The picture is read as by `lenet.predict`.
"""

import functools
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from jaxtyping import Array, Float, UInt8

from lenet import checkpoints, data, layers, predict
from lenet import model as models
from lenet.checkpoints import Trained
from lenet.files import write_atomically
from lenet.registry import lookup
from lenet.templates import document
from lenet.templates.look import Excited, Look, ReceptiveField, sections

# Images to send through a network at once.
BATCH = 1000
MOST_EXCITING = 4
MAPS = ("c1", "s2", "c3", "s4")
CHOICES = ("activation", "pooling", "connections", "head")

Images = UInt8[np.ndarray, "image height width channel"]
Picture = UInt8[np.ndarray, "height width channel"]


def activations(
    model: models.LeNet, params: Any, images: Float[Array, "batch height width channel"]
) -> dict[str, Array]:
    """What every layer makes of normalised images, after the activation.

    Maps are `map height width batch`, units `unit batch`. s2 and s4 are left out where there is no
    pooling.
    """
    outputs, captured = model.apply(
        {"params": params}, images, capture_intermediates=True, mutable=["intermediates"]
    )
    activate = lookup(layers.ACTIVATIONS, model.activation, "activation")
    found = {}
    for name in models.layer_names(model)[:-1]:
        (values,) = captured["intermediates"][name]["__call__"]
        if name in ("c1", "c3"):
            found[name] = activate(layers.merge_phases(values))
        elif name not in ("s2", "s4"):
            found[name] = activate(values)
        elif model.pooling != "none":
            found[name] = values
    return {**found, "output": jnp.asarray(outputs).T}


def receptive_fields(network: Trained, picture: Picture) -> tuple[ReceptiveField, ...]:
    """The receptive fields of one unit each of c1 s2 c3 s4, near the middle.

    Of the maps, the one whose unit there depends most on the pixels is taken. Where none depends on
    them, as where every ReLU is off, the units around are tried, the nearest first.
    """
    model, params = network.model, network.params
    image = network.shown(picture[None])[0]
    rows = {row.name: row for row in models.summarize(model, picture.shape).layers}
    shapes = jax.eval_shape(functools.partial(activations, model), params, image[None])
    untried = {name: _from_the_middle(*shapes[name].shape[1:3]) for name in MAPS if name in rows}
    places = {name: each.pop(0) for name, each in untried.items()}
    middles = dict(places)
    while True:
        slopes = {
            name: np.asarray(each) for name, each in _slopes(model, params, image, places).items()
        }
        off = [name for name in untried if untried[name] and not slopes[name].any()]
        if not off:
            break
        places |= {name: untried[name].pop(0) for name in off}
    fields = []
    stride = 1
    for name in untried:
        stride *= 2 if name in ("s2", "s4") else 1
        row, column = places[name] if slopes[name].any() else middles[name]
        strongest = int(slopes[name].sum(axis=(1, 2)).argmax())
        square = (row * stride, column * stride, rows[name].receptive_field)
        fields.append(
            ReceptiveField(name, (strongest, row, column), square, slopes[name][strongest])
        )
    return tuple(fields)


def _from_the_middle(height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of a map, those nearest to its middle first."""
    return sorted(
        itertools.product(range(height), range(width)),
        key=lambda place: (place[0] - height // 2) ** 2 + (place[1] - width // 2) ** 2,
    )


@functools.partial(jax.jit, static_argnums=0)
def _slopes(
    model: models.LeNet,
    params: Any,
    image: Float[Array, "height width channel"],
    places: Mapping[str, tuple[Any, Any]],
) -> dict[str, Float[Array, "_ height width"]]:
    """By layer, of its units at one place the magnitudes of the derivatives by the pixels."""

    def units(image: Float[Array, "height width channel"]) -> dict[str, Float[Array, " _"]]:
        made = activations(model, params, image[None])
        return {name: made[name][:, row, column, 0] for name, (row, column) in places.items()}

    slopes = jax.jacrev(units)(image)
    return {name: jnp.abs(each).sum(axis=-1) for name, each in slopes.items()}


def most_exciting(network: Trained, images: Images) -> Excited:
    """Of each unit of f6 the images for which its activation is greatest; of equals the first."""
    f6 = jax.jit(lambda params, batch: activations(network.model, params, batch)["f6"])
    found = [
        np.asarray(f6(network.params, network.shown(images[start : start + BATCH])))
        for start in range(0, len(images), BATCH)
    ]
    units = np.concatenate(found, axis=1)
    order = np.argsort(-units, axis=1, kind="stable")[:, :MOST_EXCITING]
    return Excited(images[order], units.max(axis=1) > units.min(axis=1), len(images))


def look(network: Trained, picture: Picture, label: str) -> Look:
    """What a network makes of a picture of the size that it takes, padded.

    Raises:
        ValueError: if the picture has another size, or the network has diverged.
    """
    model, params = network.model, network.params
    _, (probabilities,) = predict.classify(network, picture[None])
    pixels = network.shown(picture[None])
    made = jax.jit(activations, static_argnums=0)(model, params, pixels)
    # Compiled functions return their entries sorted by name.
    maps = {
        name: np.asarray(made[name][..., 0]) for name in models.layer_names(model) if name in made
    }
    connect = lookup(layers.CONNECTIONS, model.connections, "connections")
    connected = connect(*model.widths[:2])
    second = params["c3"]["kernel"]
    if not connected.all():
        second = layers.spread_connections(second, connected)
    excited: Excited | str | None = None
    if "f6" in maps:
        images = data.load_test_images(network.config, network.dataset)
        excited = images if isinstance(images, str) else most_exciting(network, images)
    return Look(
        label=label,
        trial=network.trial,
        choices={name: getattr(model, name) for name in CHOICES},
        class_names=network.dataset["class_names"],
        picture=picture,
        pixels=np.asarray(pixels[0]),
        probabilities=probabilities,
        first=np.asarray(params["c1"]["kernel"]),
        second=np.asarray(second),
        connected=connected,
        bias=np.asarray(params["c1"]["bias"]),
        maps=maps,
        fields=receptive_fields(network, picture),
        excited=excited,
    )


def load(workdirs: Sequence[str], trials: Sequence[str]) -> list[tuple[str, Trained]]:
    """The networks, each with a short name.

    Args:
        workdirs: where they are.
        trials: one for each workdir, one for all, several of the one workdir, or none, which means
            the first of each.

    Raises:
        ValueError: if there are other numbers of trials and workdirs.
        CheckpointError: if a workdir does not hold what is asked for.
    """
    count = max(len(workdirs), len(trials))
    if {len(workdirs), len(trials) or 1} - {1, count}:
        raise ValueError(
            f"{len(trials)} times --trial for {len(workdirs)} workdirs; name one for each, or one"
        )
    folders = [workdirs[index % len(workdirs)] for index in range(count)]
    wanted = [trials[index % len(trials)] if trials else None for index in range(count)]
    networks = [checkpoints.load_trained(*each) for each in zip(folders, wanted, strict=True)]
    return list(zip(_labels(folders, networks), networks, strict=True))


def _labels(folders: Sequence[str], networks: Sequence[Trained]) -> list[str]:
    """A name for each network: its workdir, with its variant or trial where that says more."""
    variants = [network.variant for network in networks]
    trials = [network.trial for network in networks]
    if len(networks) > 1 and len(set(folders)) == 1:
        return variants if len(set(variants)) == len(variants) else trials
    names = [Path(folder).resolve().name for folder in folders]
    if len(set(names)) < len(set(folders)):
        names = list(folders)
    # A workdir is often named for the one variant in it.
    labels = [
        name if variant in ("", name) else f"{name}: {variant}"
        for name, variant in zip(names, variants, strict=True)
    ]
    if len(set(labels)) < len(labels):
        return [f"{name}: {trial}" for name, trial in zip(names, trials, strict=True)]
    return labels


def write(
    networks: Sequence[tuple[str, Trained]],
    path: str,
    out: Path,
    *,
    invert: bool = False,
    fit: bool = False,
) -> tuple[list[Look], str]:
    """Writes the page; gives what is on it, and a hint if the picture looks dark on light.

    Raises:
        ValueError: if there is not one picture, or a network cannot take it.
        OSError: if the page cannot be written.
    """
    looks, hint = [], ""
    for label, network in networks:
        pictures = predict.read_pictures(network, [path], invert=invert, fit=fit)
        if len(pictures) != 1:
            raise ValueError(
                f"one picture is looked at, and {path} has {len(pictures)}; "
                "name one PNG or JPEG file"
            )
        hint = hint or predict.hint(pictures, invert)
        looks.append(look(network, pictures[0].pixels, label))
    *others, last = [each.label for each in looks]
    by = f"{', '.join(others)} and {last}" if others else last
    page = document.to_html(f"{Path(path).name}, looked at by {by}", sections(looks)).encode()
    write_atomically(out, lambda file: file.write(page))
    return looks, hint


def main(argv: Sequence[str]) -> None:
    """Writes the page of one picture; prints where it is, and the class that each network gives."""
    values = flags.FLAGS
    try:
        if not values.workdir:
            raise ValueError("--workdir is missing: name the folder of a trained run")
        if len(argv) != 2:
            raise ValueError(f"one picture is looked at, and {len(argv) - 1} are named")
        networks = load(values.workdir, values.trial or [])
        out = Path(values.out) if values.out else Path(values.workdir[0]) / "look.html"
        looks, hint = write(networks, argv[1], out, invert=values.invert, fit=values.fit)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    if hint:
        print(hint, file=sys.stderr)
    print(out)
    width = max(len(each.label) for each in looks)
    for each in looks:
        name, probability = each.answer
        print(f"{each.label:{width}}  {name}  {probability:.4f}")


if __name__ == "__main__":
    flags.DEFINE_multi_string("workdir", None, "The folder of a trained run; may be repeated.")
    flags.DEFINE_multi_string("trial", None, "The id of a trial; may be repeated. Default: first.")
    flags.DEFINE_string("out", None, "The page to write. Default: look.html in the first workdir.")
    flags.DEFINE_bool("invert", False, "Turn dark digits on a light ground into light on dark.")
    flags.DEFINE_bool(
        "fit", False, "Crop, scale and centre a picture of any size, as MNIST's were."
    )
    app.call_after_init(lambda: logging.set_verbosity(logging.WARNING))
    app.run(main)
