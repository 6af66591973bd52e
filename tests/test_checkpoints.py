import errno
import json
import logging
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lenet import checkpoints
from lenet.model import LeNet, init_params


@pytest.fixture(autouse=True)
def _heard(monkeypatch):
    monkeypatch.setattr(logging.getLogger("lenet"), "propagate", True)


def tree(seed):
    key = jax.random.key(seed)
    return {
        "state": {"params": {"c1": {"kernel": jax.random.normal(key, (2, 5, 5, 1, 6))}}},
        "step": jnp.array([seed, seed], jnp.int32),
        "diverged": jnp.array([True, False]),
    }


def record(step):
    return {"step": step, "epoch": step, "train_seconds": 1.5, "trials": []}


def assert_same_bits(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def saved(folder, steps, keep=10):
    with checkpoints.manager(folder, keep) as opened:
        for step in steps:
            checkpoints.save(opened, step, tree(step), record(step))


def restored(folder):
    with checkpoints.manager(folder, 10) as opened:
        return checkpoints.restore(opened, tree(0))


def arrays_of(folder, step):
    """Every file of a checkpoint's arrays, the largest last."""
    files = [path for path in (folder / str(step) / "arrays").rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_size)


def test_what_is_restored_has_the_bits_that_were_saved(tmp_path):
    saved(tmp_path / "p", [1, 2, 3])
    found, said = restored(tmp_path / "p")
    assert_same_bits(found, tree(3))
    assert said["step"] == 3
    assert said["train_seconds"] == 1.5


def test_only_the_last_few_are_kept(tmp_path):
    saved(tmp_path / "p", range(5), keep=2)
    assert sorted(int(path.name) for path in (tmp_path / "p").iterdir()) == [3, 4]


def test_without_a_checkpoint_nothing_is_restored(tmp_path):
    assert restored(tmp_path / "p") is None


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, os.unlink])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(tmp_path, caplog, damage):
    saved(tmp_path / "p", [1, 2])
    damage(arrays_of(tmp_path / "p", 2)[-1])
    found, said = restored(tmp_path / "p")
    assert said["step"] == 1
    assert_same_bits(found, tree(1))
    assert "checkpoint 2 in" in caplog.text
    assert "is damaged" in caplog.text
    assert (tmp_path / "damaged-p-2-0").is_dir()
    saved(tmp_path / "p", [2])
    assert restored(tmp_path / "p")[1]["step"] == 2


def test_a_checkpoint_without_its_record_is_damaged(tmp_path):
    saved(tmp_path / "p", [1, 2])
    shutil.rmtree(tmp_path / "p" / "2" / "record")
    assert restored(tmp_path / "p")[1]["step"] == 1


def test_a_checkpoint_whose_arrays_were_exchanged_is_damaged(tmp_path):
    saved(tmp_path / "p", [1, 2])
    shutil.rmtree(tmp_path / "p" / "2" / "arrays")
    shutil.copytree(tmp_path / "p" / "1" / "arrays", tmp_path / "p" / "2" / "arrays")
    assert restored(tmp_path / "p")[1]["step"] == 1


def test_a_checkpoint_half_written_when_killed_is_no_checkpoint(tmp_path):
    saved(tmp_path / "p", [1, 2])
    whole = tmp_path / "p" / "2"
    whole.rename(tmp_path / "p" / "2.orbax-checkpoint-tmp-123")
    assert restored(tmp_path / "p")[1]["step"] == 1


def test_when_all_are_damaged_none_is_restored(tmp_path):
    saved(tmp_path / "p", [1, 2])
    for step in (1, 2):
        cut(arrays_of(tmp_path / "p", step)[-1])
    assert restored(tmp_path / "p") is None


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    saved(tmp_path / "p", [1])

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with checkpoints.manager(tmp_path / "p", 10) as opened:
        monkeypatch.setattr(opened, "save", full)
        with pytest.raises(checkpoints.CheckpointError) as raised:
            checkpoints.save(opened, 2, tree(2), record(2))
    assert "No space left on device" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert restored(tmp_path / "p")[1]["step"] == 1


FIELDS = {
    "activation": "tanh",
    "pooling": "average",
    "connections": "full",
    "head": "dense",
    "widths": (6, 16, 120, 84),
    "initialization": "lecun_normal",
    "convolution": "auto",
}


def population(seeds):
    """Members as a checkpoint names them: parameters under state.params."""
    params = [init_params(LeNet(), jax.random.key(seed), (32, 32, 1)) for seed in seeds]
    return {"state": {"params": jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)}}


@pytest.fixture
def run(tmp_path):
    normalizations = {name: {"scale": [scale]} for name, scale in (("unit", 1), ("lecun", 2))}
    described = {"class_names": list("0123456789"), "normalizations": normalizations}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    for number, (seeds, inputs) in enumerate([((0, 1), "unit"), ((2,), "lecun")]):
        fields = {**FIELDS, "normalization": inputs}
        trials = [{"id": f"x/seed={seed}", "fields": {**fields, "seed": seed}} for seed in seeds]
        with checkpoints.manager(tmp_path / "checkpoints" / f"population-{number}", 3) as opened:
            checkpoints.save(opened, 9, population(seeds), {**record(9), "trials": trials})
    return tmp_path


def test_a_trained_model_is_found_by_its_trial(run):
    for trial, seed in ((None, 0), ("x/seed=0", 0), ("x/seed=1", 1), ("x/seed=2", 2)):
        found = checkpoints.load_trained(str(run), trial)
        assert found.trial == f"x/seed={seed}"
        assert found.model == LeNet(activation="tanh", pooling="average")
        assert found.epoch == 9
        expected = init_params(LeNet(), jax.random.key(seed), (32, 32, 1))
        assert_same_bits(found.params, expected)


def test_a_trained_model_knows_the_scale_of_its_own_inputs(run):
    for trial, scale in (("x/seed=1", 1), ("x/seed=2", 2)):
        found = checkpoints.load_trained(str(run), trial)
        assert found.dataset["normalization"] == {"scale": [scale]}


def test_an_unknown_trial_lists_the_known_ones(run):
    with pytest.raises(checkpoints.CheckpointError, match="it has: x/seed=0, x/seed=1, x/seed=2"):
        checkpoints.load_trained(str(run), "x/seed=7")


def test_a_folder_without_a_run_says_how_to_train_one(tmp_path):
    with pytest.raises(checkpoints.CheckpointError, match="holds no run; train one with: python"):
        checkpoints.load_trained(str(tmp_path))
