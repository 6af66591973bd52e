import gzip
import hashlib
import struct
import tarfile

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenet import formats
from tests import fakes

IMAGES = bytes.fromhex("00000803 00000002 00000001 00000003") + bytes([0, 1, 2, 253, 254, 255])
LABELS = bytes.fromhex("00000801 00000002") + bytes([7, 2])


def test_idx_files_are_read_as_their_bytes_say():
    images = formats.from_idx(IMAGES, "images")
    labels = formats.from_idx(LABELS, "labels", formats.LABEL_RANKS)
    np.testing.assert_array_equal(images, np.array([[[0, 1, 2]], [[253, 254, 255]]], np.uint8))
    np.testing.assert_array_equal(labels, np.array([7, 2], np.uint8))
    assert images.dtype == labels.dtype == np.uint8


def test_idx_files_are_written_as_the_format_says():
    assert formats.to_idx(np.array([[[0, 1, 2]], [[253, 254, 255]]], np.uint8)) == IMAGES
    four_bytes = bytes.fromhex("00000C01 00000002 FFFFFFFF 00010000")
    assert formats.to_idx(np.array([-1, 65536], np.int32)) == four_bytes


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int8, np.int16, np.int32]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
    ),
    st.booleans(),
)
def test_idx_gives_back_what_was_written(array, compressed):
    data = formats.to_idx(array)
    back = formats.from_idx(gzip.compress(data) if compressed else data, "file", (1, 2, 3, 4))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short: 0 bytes"),
        (IMAGES[:9], "cut short: 9 bytes, and its header has 16"),
        (IMAGES[:-1], "is cut short: 2x1x3 and the header make 22 bytes, it has 21"),
        (IMAGES + b"xy", "goes on for 2 bytes after its end"),
        (LABELS, "has the magic number 0x00000801; here an IDX file begins with 0x00000803"),
        (b"\x00\x00\x0d" + IMAGES[3:], "has the magic number 0x00000D03"),
        (b"\x89PNG....", "has the magic number 0x89504E47"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "is cut short"),
        (gzip.compress(IMAGES, mtime=0)[:-9], "is no valid gzip file"),
        (b"\x1f\x8b" + bytes(20), "is no valid gzip file"),
    ],
)
def test_malformed_idx_files_are_refused(data, message):
    with pytest.raises(ValueError, match=f"^file .*{message}") as error:
        formats.from_idx(data, "file")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "pattern",
    ["{0}-{1}-idx{2}-ubyte", "{0}-{1}.idx{2}-ubyte", "digits-{0}-{1}-idx{2}-ubyte"],
)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("test", ["t10k", "test"])
def test_idx_folders_are_read_under_their_usual_names(tmp_path, pattern, compressed, test):
    content = fakes.arrays()
    for name, array in content.items():
        split, kind = name.split("_")
        split = test if split == "test" else split
        payload = fakes.idx(array)
        path = tmp_path / pattern.format(split, kind, 3 if kind == "images" else 1)
        if compressed:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(payload))
        else:
            path.write_bytes(payload)
    images = formats.read_idx_folder(tmp_path)
    np.testing.assert_array_equal(images.train_images[..., 0], content["train_images"])
    np.testing.assert_array_equal(images.test_labels, content["test_labels"])
    assert images.class_names == ("0", "1", "2")


def test_plain_idx_file_is_read_rather_than_its_gzipped_copy(tmp_path):
    fakes.write_idx_folder(tmp_path, fakes.arrays())
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"not read")
    formats.read_idx_folder(tmp_path)


def test_folder_without_one_of_the_files_names_it(tmp_path):
    fakes.write_idx_folder(tmp_path, fakes.arrays())
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="has no t10k-labels-idx1-ubyte"):
        formats.read_idx_folder(tmp_path)


def test_folder_of_two_sets_is_refused(tmp_path):
    fakes.write_idx_folder(tmp_path, fakes.arrays())
    (tmp_path / "emnist-letters-train-images-idx3-ubyte").touch()
    with pytest.raises(ValueError, match=r"holds 2 sets .one without prefix, emnist-letters"):
        formats.read_idx_folder(tmp_path)


def test_npz_is_read_with_its_class_names(tmp_path):
    content = fakes.arrays(shape=(5, 4, 3))
    np.savez(tmp_path / "set.npz", class_names=["cat", "dog", "owl", "yak"], **content)
    images, _ = formats.read_npz(tmp_path / "set.npz")
    np.testing.assert_array_equal(images.train_images, content["train_images"])
    assert images.class_names == ("cat", "dog", "owl", "yak")


def test_npz_with_pickled_objects_is_refused(tmp_path):
    content = {**fakes.arrays(), "train_labels": np.array([object()] * 12)}
    np.savez(tmp_path / "set.npz", **content)
    with pytest.raises(ValueError, match=r"set.npz cannot be read: Object arrays"):
        formats.read_npz(tmp_path / "set.npz")


@pytest.mark.parametrize("damage", ["text", "cut", "flipped", "array"])
def test_damaged_npz_is_refused(tmp_path, damage):
    path = tmp_path / "set.npz"
    np.savez(path, **fakes.arrays(shape=(28, 28)))
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    if damage == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes({"text": b"hello", "cut": data[:3000], "flipped": data}[damage])
    with pytest.raises(ValueError, match=r"set.npz cannot be read: .*train_images, train_labels"):
        formats.read_npz(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_labels": None}, "set: test_labels missing; it has train_images, train_labels,"),
        ({"train_images": np.zeros((12, 5, 4))}, "train_images are float64; they must be uint8"),
        ({"test_images": np.zeros((6, 20), np.uint8)}, "test_images are 6x20; they must be number"),
        ({"train_images": np.zeros((12, 3, 32, 32), np.uint8)}, "12x3x32x32: 32 channels"),
        ({"train_images": np.zeros((12, 5, 4, 2), np.uint8)}, "2 channels; the last dimension"),
        ({"train_images": np.zeros((0, 5, 4), np.uint8)}, "0x5x4x1: there is no pixel"),
        ({"test_images": np.zeros((6, 0, 4), np.uint8)}, "6x0x4x1: there is no pixel"),
        ({"train_labels": np.zeros(12)}, "train_labels are float64; they must be integers"),
        ({"train_labels": np.zeros((12, 1), int)}, "are 12x1; they must be one-dimensional"),
        ({"test_labels": np.zeros(5, int)}, "test_labels: there are 5 labels for 6 images"),
        ({"train_labels": np.full(12, -1)}, "train_labels has -1; labels count from 0"),
        ({"train_labels": np.full(12, 2**40)}, "train_labels has 1099511627776"),
        ({"test_labels": np.array([0, 1, 2, 3, 0, 0])}, "test_labels has 3 at index 3, but"),
        ({"test_images": np.zeros((6, 5, 5), np.uint8)}, "are 5x4x1 and test_images 5x5x1"),
    ],
)
def test_invalid_sets_are_refused(changes, message):
    content = {**fakes.arrays(), **changes}
    content = {name: array for name, array in content.items() if array is not None}
    with pytest.raises(ValueError, match=message) as error:
        formats.image_set(content, "set")
    assert "\n" not in str(error.value)


def test_labels_must_be_within_the_named_classes():
    with pytest.raises(ValueError, match="train_labels has 2 at index 2, but the classes are 0 to"):
        formats.image_set(fakes.arrays(), "set", ("cat", "dog"))


def test_every_set_is_brought_to_one_form():
    gray = formats.image_set(fakes.arrays(), "set")
    colour = formats.image_set(fakes.arrays(shape=(5, 4, 3)), "set")
    assert gray.train_images.shape == (12, 5, 4, 1)
    assert colour.test_images.shape == (6, 5, 4, 3)
    assert gray.train_labels.dtype == colour.test_labels.dtype == np.int32


def test_fingerprint_is_what_sha256sum_makes_of_the_idx_files():
    content = fakes.arrays()
    digests = [hashlib.sha256(payload).hexdigest() for payload in fakes.idx_files(content).values()]
    lines = "".join(f"{digest}\n" for digest in digests)
    images = formats.image_set(content, "set")
    assert formats.idx_digests(images) == tuple(digests)
    assert formats.fingerprint(digests) == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize("array", formats.ARRAYS)
def test_fingerprint_sees_every_number(array):
    content, changed = fakes.arrays(), fakes.arrays()
    changed[array].reshape(-1)[-1] ^= 1
    digests = [formats.idx_digests(formats.image_set(x, "", "abcd")) for x in (content, changed)]
    assert [a != b for a, b in zip(*digests, strict=True)] == [x == array for x in formats.ARRAYS]


def test_cifar_records_are_a_label_then_planes_of_red_green_and_blue():
    record = bytes([4]) + bytes([10]) * 1024 + bytes([20]) * 1024 + bytes(range(256)) * 4
    images, labels = formats.from_cifar_binary(record + bytes(3073), "batch")
    assert labels.tolist() == [4, 0]
    assert images[0, 0, 0].tolist() == [10, 20, 0]
    assert images[0, 1, 2].tolist() == [10, 20, 34]
    with pytest.raises(ValueError, match="batch has 3072 bytes; CIFAR-10 is in records of 3073"):
        formats.from_cifar_binary(record[:-1], "batch")


def test_csv_of_another_width_or_content_is_refused():
    with pytest.raises(ValueError, match="file has 3 columns; 28x28 and a label make 785"):
        formats.from_csv(gzip.compress(b"1,2,3\n"), "file")
    with pytest.raises(ValueError, match="file is no table of bytes"):
        formats.from_csv(gzip.compress(b"1,2,300\n"), "file")


def test_tar_members_are_read_in_the_order_asked_for(tmp_path):
    path = fakes.tarball(tmp_path / "x.tgz", {"a/1": b"one", "a/2": b"two", "a/3": b"three"})
    assert formats.tar_members(path, ["a/3", "a/1"]) == [b"three", b"one"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../evil": b"", "a": b"x"}, "has the unsafe member '../evil'"),
        ({"a": b"x", "b/../../evil": b""}, "unsafe member"),
        ({"/etc/evil": b"", "a": b"x"}, "unsafe member"),
        ({"b": b"x"}, "x.tgz has no a"),
    ],
)
def test_tarballs_that_reach_outside_are_refused(tmp_path, members, message):
    path = fakes.tarball(tmp_path / "x.tgz", members)
    with pytest.raises(ValueError, match=message):
        formats.tar_members(path, ["a"])
    assert [file.name for file in tmp_path.iterdir()] == ["x.tgz"]


@pytest.mark.parametrize("link", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_tarballs_with_a_link_for_a_file_are_refused(tmp_path, link):
    path = fakes.tarball(tmp_path / "x.tgz", {"a": b""}, link)
    with pytest.raises(ValueError, match="a is no ordinary file"):
        formats.tar_members(path, ["a"])


def test_tarball_cut_short_is_refused(tmp_path):
    path = fakes.tarball(tmp_path / "x.tgz", {"a": np.random.default_rng(0).bytes(9000)})
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ValueError, match=r"x.tgz is no valid .tar.gz"):
        formats.tar_members(path, ["a"])
