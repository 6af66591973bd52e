"""Several processes that train one run together, on one machine or many.

All of them run the same program, each on its own devices. The first, the *primary*, alone reads and
writes the workdir, so the machines need share no disk; what it finds there it tells the others.
With one process every function here does what its name says, without any exchange.
"""

import collections
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

Tree = TypeVar("Tree")

PRIMARY = 0


class ElsewhereError(Exception):
    """Another process failed, and has said why."""


def join(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Makes this process one of several; must come before JAX is first used.

    Args:
        coordinator: address `host:port` of the primary, the same for all.
        count: how many processes there are.
        index: which of them this is, from 0, the primary.

    What is left out is detected, on the clusters that JAX knows: Slurm, Open MPI, MPI, Kubernetes,
    GKE, TPU pods.

    Raises:
        ValueError: if an argument is out of range, some are missing and no cluster is detected, or
            the others do not come.
    """
    if count is not None and count < 1:
        raise ValueError(f"num_processes={count} must be at least 1")
    if index is not None and not 0 <= index < (index + 1 if count is None else count):
        raise ValueError(f"process_id={index} must be from 0 to num_processes - 1")
    try:
        jax.distributed.initialize(coordinator, count, index)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"could not join the other processes: {reason[:300]}; on Slurm and TPU pods "
            "--distributed finds them, elsewhere give --coordinator_address, --num_processes and "
            "--process_id"
        ) from error


def is_primary() -> bool:
    """Whether this process is the one that reads and writes the workdir."""
    return jax.process_index() == PRIMARY


def gather(tree: Tree) -> Tree:
    """Arrays that are spread over the devices of all processes, as NumPy arrays in each of them."""
    return jax.tree.map(_gathered, tree)


def _gathered(array: Any) -> np.ndarray:
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def from_each(values: Any) -> np.ndarray:
    """A number or an array of each process, stacked in the order of the processes."""
    if jax.process_count() == 1:
        return np.asarray(values)[None]
    return np.asarray(multihost_utils.process_allgather(np.asarray(values)))


def together(function: Callable[[], Tree]) -> Tree:
    """Calls a function in every process, and fails in all of them if it fails in one.

    Raises:
        ElsewhereError: if it raised in another process but not in this one.
    """
    try:
        result = function()
    except Exception:
        from_each(True)
        raise
    failed = np.flatnonzero(from_each(False))
    if len(failed):
        raise ElsewhereError(f"process {failed[0]} failed")
    return result


def from_primary(function: Callable[[], Any]) -> Any:
    """Calls a function in the primary alone, and gives what it returns, as JSON, to every process.

    Raises:
        ElsewhereError: in the others, if it raised in the primary.
    """
    result = together(lambda: function() if is_primary() else None)
    if jax.process_count() == 1:
        return result
    payload = np.frombuffer(json.dumps(result).encode(), np.uint8)
    return json.loads(_broadcast(payload, from_each(len(payload))[PRIMARY]).tobytes())


def share(tree: Tree) -> Tree:
    """The primary's arrays, bit for bit, given to every process; all have the same shapes."""
    if jax.process_count() == 1:
        return tree

    def shared(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        payload = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        return _broadcast(payload, array.nbytes).view(array.dtype).reshape(array.shape)

    return jax.tree.map(shared, tree)


def _broadcast(payload: np.ndarray, length: int) -> np.ndarray:
    own = payload if is_primary() else np.zeros(length, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(own))


def in_turns(devices: Sequence[Any]) -> list[Any]:
    """Devices in an order in which those of different processes take turns."""
    seen: collections.Counter[int] = collections.Counter()
    entries = []
    for device in devices:
        entries.append((seen[device.process_index], device.process_index, device))
        seen[device.process_index] += 1
    return [device for _, _, device in sorted(entries, key=lambda entry: entry[:2])]
