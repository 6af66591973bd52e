"""Image sets as bytes: IDX, CIFAR binary, CSV and `.npz`, with the checks that every set passes.

Everything here is strict: what is cut short, too long, of another type or out of range raises a
`ValueError` of one line that says which file is wrong, how, and what would be right.
"""

import collections
import dataclasses
import gzip
import hashlib
import io
import math
import re
import struct
import tarfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Integer, Shaped, UInt8

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IDX_TYPES: dict[int, np.dtype] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
}
IMAGE_RANKS = (3, 4)
LABEL_RANKS = (1,)
CIFAR_SHAPE = (3, 32, 32)
CSV_SIDE = 28
MAX_CLASSES = 65_536
MAX_MEMBER_BYTES = 256 * 2**20
_IDX_NAME = re.compile(
    r"(?:(?P<prefix>.+)[-_.])?(?P<split>train|t10k|test)-(?P<kind>images|labels)[-.]idx\d-ubyte"
    r"(?:\.gz)?",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Checked images and labels, as any source gives them: see `image_set`."""

    train_images: UInt8[np.ndarray, "train height width channel"]
    train_labels: Int32[np.ndarray, "train"]
    test_images: UInt8[np.ndarray, "test height width channel"]
    test_labels: Int32[np.ndarray, "test"]
    class_names: tuple[str, ...]


def image_set(
    arrays: Mapping[str, Shaped[np.ndarray, "..."]], where: str, class_names: Sequence[str] = ()
) -> ImageSet:
    """Checks the four `ARRAYS` and brings them to one form: NHWC uint8 images, int32 labels.

    Without `class_names` the classes are 0 to the largest training label.

    Raises:
        ValueError: an array is missing, or of a wrong type, rank, length, shape or range; the
            message begins with `where`.
    """
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise ValueError(
            f"{where}: {', '.join(missing)} missing; it has {', '.join(arrays) or 'nothing'}, "
            f"and needs {', '.join(ARRAYS)}"
        )
    images, labels = {}, {}
    for split in ("train", "test"):
        images[split] = _checked_images(arrays[f"{split}_images"], f"{where}: {split}_images")
        labels[split] = _checked_labels(
            arrays[f"{split}_labels"], len(images[split]), f"{where}: {split}_labels"
        )
    if images["train"].shape[1:] != images["test"].shape[1:]:
        raise ValueError(
            f"{where}: train_images are {_by(images['train'].shape[1:])} and test_images "
            f"{_by(images['test'].shape[1:])}; they must be of one shape"
        )
    names = tuple(class_names) or tuple(map(str, range(int(labels["train"].max()) + 1)))
    for split in ("train", "test"):
        wrong = np.flatnonzero(labels[split] >= len(names))
        if wrong.size:
            raise ValueError(
                f"{where}: {split}_labels has {labels[split][wrong[0]]} at index {wrong[0]}, but "
                f"the classes are 0 to {len(names) - 1}"
            )
    return ImageSet(images["train"], labels["train"], images["test"], labels["test"], names)


def _checked_images(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(f"{what} are {array.dtype}; they must be uint8, pixels from 0 to 255")
    if array.ndim not in IMAGE_RANKS:
        raise ValueError(
            f"{what} are {_by(array.shape)}; they must be number x height x width, or number x "
            "height x width x channels"
        )
    array = array[..., None] if array.ndim == 3 else array
    if array.size == 0:
        raise ValueError(f"{what} are {_by(array.shape)}: there is no pixel in them")
    if array.shape[-1] not in (1, 3):
        raise ValueError(
            f"{what} are {_by(array.shape)}: {array.shape[-1]} channels; the last dimension must "
            "be 1 (gray) or 3 (colour)"
        )
    return np.ascontiguousarray(array)


def _checked_labels(array: np.ndarray, examples: int, what: str) -> np.ndarray:
    if array.dtype.kind not in "iu":
        raise ValueError(f"{what} are {array.dtype}; they must be integers")
    if array.ndim != 1:
        raise ValueError(f"{what} are {_by(array.shape)}; they must be one-dimensional")
    if len(array) != examples:
        raise ValueError(f"{what}: there are {len(array)} labels for {examples} images")
    for label in (int(array.min()), int(array.max())):
        if not 0 <= label < MAX_CLASSES:
            raise ValueError(f"{what} has {label}; labels count from 0, up to {MAX_CLASSES - 1}")
    return np.ascontiguousarray(array, np.int32)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def idx_digests(images: ImageSet) -> tuple[str, str, str, str]:
    """The sha256 of the four uncompressed IDX files of a set, in the order of `IDX_FILES`.

    Gray images are written with three dimensions, colour images with four, labels as bytes where
    they fit and as 4-byte integers where they do not.
    """
    train_images, train_labels, test_images, test_labels = (
        _digest(array)
        for array in (
            _as_idx(images.train_images),
            _as_idx(images.train_labels),
            _as_idx(images.test_images),
            _as_idx(images.test_labels),
        )
    )
    return train_images, train_labels, test_images, test_labels


def fingerprint(digests: Sequence[str]) -> str:
    """The sha256 of the four digests, one to a line: the same images have the same fingerprint.

    `sha256sum FILES | cut -c1-64 | sha256sum` prints it for four uncompressed IDX files.
    """
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def _as_idx(array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:
        return array[..., 0] if array.shape[-1] == 1 else array
    return array.astype(np.uint8) if array.max() < 256 else array


def _digest(array: np.ndarray) -> str:
    header, payload = _idx_parts(array)
    digest = hashlib.sha256(header)
    digest.update(payload)
    return digest.hexdigest()


def _idx_parts(array: np.ndarray) -> tuple[bytes, memoryview]:
    dtype = array.dtype.newbyteorder(">")
    code = next((code for code, known in IDX_TYPES.items() if dtype == known), None)
    if code is None:
        raise ValueError(f"IDX files hold integers of 1, 2 or 4 bytes, not {array.dtype}")
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header, np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data


def to_idx(array: Integer[np.ndarray, "..."]) -> bytes:
    """The bytes of an IDX file: the magic number, the sizes, the numbers, all big-endian."""
    header, payload = _idx_parts(array)
    return header + payload


def from_idx(
    data: bytes, what: str, ranks: Collection[int] = IMAGE_RANKS
) -> Integer[np.ndarray, "..."]:
    """The array in an IDX file, which may be gzipped: see `to_idx`.

    Raises:
        ValueError: `data` is no IDX file with one of these numbers of dimensions, is cut short,
            or goes on after its end; the message begins with `what`.
    """
    if data[:2] == b"\x1f\x8b":
        data = gunzip(data, what)
    if len(data) < 4:
        raise ValueError(f"{what} is cut short: {len(data)} bytes, less than an IDX header")
    zero, code, rank = struct.unpack(">HBB", data[:4])
    if zero != 0 or code not in IDX_TYPES or rank not in ranks:
        wanted = " or ".join(f"0x{0x0800 + rank:08X}" for rank in ranks)
        raise ValueError(
            f"{what} has the magic number 0x{data[:4].hex().upper()}; here an IDX file begins "
            f"with {wanted}"
        )
    start = 4 + 4 * rank
    if len(data) < start:
        raise ValueError(f"{what} is cut short: {len(data)} bytes, and its header has {start}")
    shape = struct.unpack(f">{rank}I", data[4:start])
    dtype = IDX_TYPES[code]
    excess = len(data) - start - math.prod(shape) * dtype.itemsize
    if excess:
        state = f"goes on for {excess} bytes after its end" if excess > 0 else "is cut short"
        raise ValueError(
            f"{what} {state}: {_by(shape)} and the header make {len(data) - excess} bytes, "
            f"it has {len(data)}"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def gunzip(data: bytes, what: str) -> bytes:
    """Decompressed gzip data.

    Raises:
        ValueError: it is corrupted or cut short.
    """
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{what} is no valid gzip file: {one_line(error)}") from error


def from_idx_files(files: Sequence[tuple[str, bytes]], class_names: Sequence[str] = ()) -> ImageSet:
    """The set in four (name, bytes) IDX files, given in the order of `ARRAYS`."""
    ranks = (IMAGE_RANKS, LABEL_RANKS, IMAGE_RANKS, LABEL_RANKS)
    arrays = {
        array: from_idx(data, name, rank)
        for array, (name, data), rank in zip(ARRAYS, files, ranks, strict=True)
    }
    return image_set(arrays, ", ".join(name for name, _ in files), class_names)


def read_idx_folder(folder: Path, class_names: Sequence[str] = ()) -> ImageSet:
    """The MNIST-like set in a folder of four IDX files under one of their usual names.

    These are `train-images-idx3-ubyte` and its like: with `.` for the second `-`, with `test` for
    `t10k`, after a prefix (`emnist-letters-train-...`), gzipped with `.gz`. Where a file lies both
    gzipped and not, the plain one is read.

    Raises:
        FileNotFoundError: one of the four is missing.
        ValueError: there are several sets in the folder, or a file is malformed.
    """
    found: dict[str, dict[str, Path]] = collections.defaultdict(dict)
    for path in sorted(folder.iterdir(), reverse=True):
        match = _IDX_NAME.fullmatch(path.name)
        if match and path.is_file():
            split = "train" if match["split"].lower() == "train" else "test"
            found[match["prefix"] or ""][f"{split}_{match['kind'].lower()}"] = path
    if len(found) > 1:
        names = ", ".join(prefix or "one without prefix" for prefix in sorted(found))
        raise ValueError(f"{folder} holds {len(found)} sets ({names}); keep one to a folder")
    files = next(iter(found.values()), {})
    missing = [name for array, name in zip(ARRAYS, IDX_FILES, strict=True) if array not in files]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {', no '.join(missing)} (or .gz); a folder of IDX files needs "
            f"{', '.join(IDX_FILES)}"
        )
    return from_idx_files(
        [(str(files[array]), files[array].read_bytes()) for array in ARRAYS], class_names
    )


def read_npz(path: Path) -> tuple[ImageSet, dict[str, str]]:
    """The set in an `.npz` of the four `ARRAYS` and perhaps `class_names`, and its text entries.

    Raises:
        ValueError: it is no `.npz`, is corrupted, pickled, or not a valid set.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single .npy array")
            arrays = {name: archive[name] for name in archive.files}
    except OSError:
        raise
    except Exception as error:  # whatever zipfile, zlib and numpy make of foreign bytes
        raise ValueError(
            f"{path} cannot be read: {one_line(error)}; it must be an .npz of the arrays "
            f"{', '.join(ARRAYS)}"
        ) from error
    texts = {name: str(array) for name, array in arrays.items() if array.dtype.kind == "U"}
    class_names = arrays.get("class_names", np.array([], str)).reshape(-1).tolist()
    return image_set(arrays, str(path), tuple(map(str, class_names))), texts


def from_cifar_binary(
    data: bytes, what: str
) -> tuple[UInt8[np.ndarray, "image 32 32 3"], UInt8[np.ndarray, "image"]]:
    """Images and labels of a CIFAR-10 binary file: a label byte, then 3x32x32 pixels, repeated.

    Raises:
        ValueError: it is not a whole number of records.
    """
    record = 1 + math.prod(CIFAR_SHAPE)
    if not data or len(data) % record:
        raise ValueError(f"{what} has {len(data)} bytes; CIFAR-10 is in records of {record}")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    images = records[:, 1:].reshape(-1, *CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].copy()


def from_csv(
    data: bytes, what: str
) -> tuple[UInt8[np.ndarray, "image 28 28"], UInt8[np.ndarray, "image"]]:
    """Images and labels of gzipped lines `pixel,...,pixel,label` with 28x28 pixels each.

    Raises:
        ValueError: it is no such table.
    """
    columns = CSV_SIDE * CSV_SIDE + 1
    try:
        table = np.loadtxt(io.BytesIO(gunzip(data, what)), np.uint8, delimiter=",", ndmin=2)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{what} is no table of bytes: {one_line(error)}") from error
    if table.shape[1] != columns:
        raise ValueError(f"{what} has {table.shape[1]} columns; 28x28 and a label make {columns}")
    return table[:, :-1].reshape(-1, CSV_SIDE, CSV_SIDE), table[:, -1].copy()


def tar_members(path: Path, names: Sequence[str]) -> list[bytes]:
    """The contents of members of a gzipped tarball; nothing is written to disk.

    Raises:
        ValueError: the tarball is corrupted, has a member that would land outside the folder it
            is extracted in, or lacks one of `names` as an ordinary file.
    """
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                parts = re.split(r"[/\\]", member.name)
                if ".." in parts or parts[0] == "" or ":" in parts[0]:
                    raise ValueError(f"{path.name} has the unsafe member {member.name!r}")
                if member.name not in names:
                    continue
                if not member.isreg() or member.size > MAX_MEMBER_BYTES:
                    raise ValueError(f"{path.name}: {member.name} is no ordinary file of its kind")
                file = archive.extractfile(member)
                contents[member.name] = file.read() if file else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path.name} is no valid .tar.gz: {one_line(error)}") from error
    missing = [name for name in names if name not in contents]
    if missing:
        raise ValueError(f"{path.name} has no {', no '.join(missing)}")
    return [contents[name] for name in names]


def one_line(error: object, length: int = 200) -> str:
    """The text of an error on one line, cut to `length` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[: length - 3]}..."
