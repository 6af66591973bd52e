"""Saving and restoring a population with Orbax, and loading a trained model.

A checkpoint is the population's arrays by name, and a JSON record beside them: where training
stood, the shapes of the arrays and their digest. What cannot be read back, or does not have that
digest, is set aside, and the checkpoint before it is used. Of several processes the primary alone
reads and writes, and what a checkpoint holds does not depend on how many there are.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from lenet import data, processes
from lenet import model as models

Tree = TypeVar("Tree")

log = logging.getLogger(__name__)

PARAMS = "state.params."


class CheckpointError(OSError):
    """A checkpoint could not be written or found."""


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def manager(directory: Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """Opens a population's checkpoints, for this process alone; the last `keep` are kept."""
    this = jax.process_index()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        enable_async_checkpointing=False,
        create=False,  # Not offered to some of many processes.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process{this}"
        ),
    )
    directory.mkdir(parents=True, exist_ok=True)
    opened = ocp.CheckpointManager(directory.absolute(), options=options)
    try:
        yield opened
    finally:
        opened.close()


def _reason(error: Exception) -> str:
    """The heart of an error of Orbax, whose messages run over many lines."""
    text = " ".join(str(error).split())
    full = os.strerror(errno.ENOSPC)
    return full if full in text else text[:200] or type(error).__name__


def save(opened: ocp.CheckpointManager, step: int, tree: Any, record: dict[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all; earlier ones are removed only after it stands.

    Raises:
        CheckpointError: if it cannot be written, as on a full disk. Earlier ones are untouched.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _named(tree).items()}
    described = {
        **record,
        "sha256": _digest(arrays),
        "arrays": {name: [array.dtype.name, *array.shape] for name, array in arrays.items()},
    }
    try:
        opened.save(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), record=ocp.args.JsonSave(described)
            ),
        )
    except Exception as error:
        with contextlib.suppress(Exception):
            opened.delete(step)
        raise CheckpointError(
            f"checkpoint {step} could not be written to {opened.directory}: {_reason(error)}; "
            "earlier checkpoints are intact, and the same command resumes from the last one"
        ) from error


def _read(opened: ocp.CheckpointManager, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    record = opened.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore())).record
    template = {name: np.empty(shape, dtype) for name, (dtype, *shape) in record["arrays"].items()}
    restored = opened.restore(
        step, args=ocp.args.Composite(arrays=ocp.args.StandardRestore(template))
    ).arrays
    arrays = {name: np.asarray(array) for name, array in restored.items()}
    if _digest(arrays) != record["sha256"]:
        raise ValueError("its arrays do not have the digest they were saved with")
    return arrays, record


def _latest(
    opened: ocp.CheckpointManager, *, set_aside: bool
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    for step in sorted(opened.all_steps(), reverse=True):
        try:
            return _read(opened, step)
        except Exception as error:
            log.warning(
                "checkpoint %d in %s is damaged (%s); using the one before it",
                step,
                opened.directory,
                _reason(error),
            )
            if set_aside:
                source = Path(opened.directory) / str(step)
                for number in range(1000):
                    target = source.parent.parent / f"damaged-{source.parent.name}-{step}-{number}"
                    if not target.exists():
                        os.replace(source, target)
                        break
                opened.reload()
    return None


def restore(
    opened: ocp.CheckpointManager | None, template: Tree
) -> tuple[Tree, dict[str, Any]] | None:
    """The latest checkpoint that is whole, in the structure of `template`, and its record.

    Damaged ones are moved out of the way, to `damaged-*` beside the population's folder, and said.

    Args:
        opened: the checkpoints; None in all processes but the primary, which tells them.
        template: for its structure.

    Returns:
        None if there is no checkpoint that is whole.
    """
    arrays: dict[str, np.ndarray] = {}

    def read() -> dict[str, Any] | None:
        found = _latest(opened, set_aside=True) if opened else None
        arrays.update(found[0] if found else {})
        return found[1] if found else None

    record = processes.from_primary(read)
    if record is None:
        return None
    empty = {name: np.zeros(shape, dtype) for name, (dtype, *shape) in record["arrays"].items()}
    arrays = processes.share(arrays or empty)
    names = list(_named(template))
    leaves = [arrays[name] for name in names]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), record


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model out of a workdir, ready to `model.apply({"params": params}, images)`.

    Attributes:
        trial: the trial's id.
        epoch: how many whole epochs it was trained for.
        config: its fields.
        model: the network.
        params: its parameters.
        dataset: what `dataset.json` says of the images it was trained on, with its normalization.
    """

    trial: str
    epoch: int
    config: ConfigDict
    model: models.LeNet
    params: dict[str, Any]
    dataset: dict[str, Any]

    @property
    def variant(self) -> str:
        """What it shares with the trials that differ from it only in the seed."""
        return self.trial.rpartition("/seed=")[0]

    @property
    def affine(self) -> data.Affine:
        """The normalization that it was trained with."""
        described = self.dataset["normalization"]
        return data.Affine(tuple(described["scale"]), tuple(described["offset"]))

    def shown(
        self, images: UInt8[np.ndarray, "image height width channel"]
    ) -> Float[jax.Array, "image padded_height padded_width channel"]:
        """Images as the network is shown them: padded to the size it takes, and normalised."""
        padded = data.pad(images, min(self.dataset["image_shape"][:2]))
        return jnp.asarray(data.normalize(jnp.asarray(padded), self.affine))


def _populations(folder: Path) -> list[Path]:
    """The folders of populations, those that tuned something last."""
    folders = [path for path in sorted(folder.glob("*-*")) if path.is_dir()]
    return [path for path in folders if not path.name.startswith(("tuning-", "damaged-"))] + [
        path for path in folders if path.name.startswith("tuning-")
    ]


def load_trained(workdir: str, trial: str | None = None) -> Trained:
    """The model of a trial at its latest checkpoint; of the first trial, if none is named.

    Raises:
        CheckpointError: if the workdir holds no trained model of that trial.
    """
    known = []
    for trained in _trained(workdir, _populations):
        if trial is None or trained.trial == trial:
            return trained
        known.append(trained.trial)
    if known:
        raise CheckpointError(f"{workdir} has no trial {trial!r}; it has: {', '.join(known)}")
    raise CheckpointError(f"{workdir} has no checkpoint yet; run its training again to resume it")


def load_all(workdir: str) -> list[Trained]:
    """The models of all trials but those that tuned something, at their latest checkpoints.

    Raises:
        CheckpointError: if the workdir holds no trained model.
    """
    found = list(_trained(workdir, lambda folder: sorted(folder.glob("population-*"))))
    if not found:
        raise CheckpointError(
            f"{workdir} has no trained model yet; run its training again to resume it"
        )
    return found


def _trained(workdir: str, populations: Callable[[Path], list[Path]]) -> Iterator[Trained]:
    folder = Path(workdir)
    if not (folder / "dataset.json").is_file():
        raise CheckpointError(
            f"{workdir} holds no run; train one with: "
            f"python main.py --config=configs/relu_max.py --workdir={workdir}"
        )
    dataset = json.loads((folder / "dataset.json").read_text())
    for population in populations(folder / "checkpoints"):
        if not population.is_dir():
            continue
        with manager(population, keep=1000) as opened:
            found = _latest(opened, set_aside=False)
        if found is None:
            continue
        arrays, record = found
        for index, described in enumerate(record["trials"]):
            config = ConfigDict(described["fields"])
            config.widths = tuple(config.widths)
            own = dataset.get("normalizations", {}).get(config.normalization)
            flat = {
                name.removeprefix(PARAMS): jnp.asarray(array[index])
                for name, array in arrays.items()
                if name.startswith(PARAMS)
            }
            yield Trained(
                described["id"],
                record["epoch"],
                config,
                models.create(config, len(dataset["class_names"])),
                flax.traverse_util.unflatten_dict(flat, sep="."),
                {**dataset, "normalization": own} if own else dataset,
            )
