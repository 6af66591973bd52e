"""What a benchmark ran on, and how fast that multiplies matrices."""

import functools
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
SIDE = 2048
PRODUCT_FLOP = 2 * SIDE**3
PRODUCTS_A_TURN = 5


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe(platform_name: str = "cpu") -> dict[str, Any]:
    """Processor, memory and versions; a version is None where the package is not installed."""
    return {
        "gpu": jax.devices()[0].device_kind if platform_name == "gpu" else None,
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        **{package: _version(package) for package in PACKAGES},
    }


def sentence(description: dict[str, Any]) -> str:
    """The machine in one line."""
    versions = ", ".join(
        f"{x} {description[x]}" for x in ("jax", "flax", "torch") if description[x]
    )
    memory = description["memory_bytes"] / 2**30
    gpu = f"{description['gpu']}, " if description["gpu"] else ""
    return (
        f"{gpu}{description['cpu']}, {description['cores']} cores, {memory:.0f} GiB, "
        f"Python {description['python']}, {versions}; load {description['load_before']:.1f} before"
    )


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.is_file() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def timed(function: Callable[[], Any]) -> Callable[[], float]:
    """The function, returning the seconds that it takes."""

    def measure() -> float:
        began = time.perf_counter()
        function()
        return time.perf_counter() - began

    return measure


def jax_product() -> Callable[[], float]:
    """A function that multiplies two 2048x2048 float32 matrices by JAX and returns FLOP/s."""
    a, b = (jax.random.normal(jax.random.key(seed), (SIDE, SIDE)) for seed in (0, 1))
    multiply = jax.jit(functools.partial(jnp.matmul, precision="highest"))
    return lambda: _rate(lambda: jax.block_until_ready(multiply(a, b)))


def torch_product(threads: int, platform_name: str = "cpu") -> Callable[[], float]:
    """The same by PyTorch.

    Raises:
        ImportError: if PyTorch is not installed.
    """
    import torch

    rng = np.random.default_rng(0)
    device = "cuda" if platform_name == "gpu" else "cpu"
    a, b = (torch.tensor(rng.normal(size=(SIDE, SIDE)), dtype=torch.float32) for _ in "ab")
    a, b = a.to(device), b.to(device)

    def multiply() -> None:
        torch.matmul(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    def measure() -> float:
        # Others may have chosen another number since.
        torch.set_num_threads(threads)
        return _rate(multiply)

    return measure


def _rate(multiply: Callable[[], Any]) -> float:
    began = time.perf_counter()
    for _ in range(PRODUCTS_A_TURN):
        multiply()
    return PRODUCTS_A_TURN * PRODUCT_FLOP / (time.perf_counter() - began)
