"""How much memory a compiled population takes, and how much there is."""

import math
from typing import Any

import jax
import psutil
from jax.sharding import Mesh


def bytes_of(tree: Any) -> int:
    """Of all the arrays of a tree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def working_bytes(function: Any) -> int:
    """Of a compiled function beside its arguments, on each device, by XLA's count."""
    analysis = function.memory_analysis()
    return (
        analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    )


def free_bytes(mesh: Mesh) -> int:
    """What each device of a mesh has left, of this process; CPU devices share the machine's."""
    device = mesh.local_devices[0]
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    return psutil.virtual_memory().available // len(mesh.local_devices)
