import gzip
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lenet import data, formats, predict

ROOT = Path(__file__).parents[1]
SIDE = 28


class BrightestThird(nn.Module):
    """Class 0, 1 or 2, as the left, middle or right third of the image is brightest."""

    @nn.compact
    def __call__(self, images):
        scale = self.param("scale", nn.initializers.ones, ())
        thirds = jnp.array_split(images.mean((1, 3)), 3, axis=1)
        return scale * jnp.stack([third.mean(1) for third in thirds], axis=1)


def trained(channels=1, native=(SIDE, SIDE), padded=(32, 32)):
    return SimpleNamespace(
        trial="thirds-0",
        model=BrightestThird(),
        params={"scale": jnp.float32(10.0)},
        dataset={
            "class_names": ["left", "middle", "right"],
            "native_shape": [*native, channels],
            "image_shape": [*padded, channels],
        },
        affine=data.Affine((1 / 255,) * channels, (-0.1,) * channels),
    )


def bar(third, side=SIDE):
    """A light bar on a dark ground, in one third of the image."""
    pixels = np.zeros((side, side), np.uint8)
    start = 2 + third * side // 3
    pixels[side // 4 : -side // 4, start : start + side // 6] = 255
    return pixels


def save(path, pixels, mode=None):
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return str(path)


def classes(paths, model=None, **options):
    model = model or trained()
    pictures = predict.read_pictures(model, paths, **options)
    labels, _ = predict.classify(model, np.stack([picture.pixels for picture in pictures]))
    return [model.dataset["class_names"][label] for label in labels]


def only(path, **options):
    (picture,) = predict.read_pictures(trained(), [path], **options)
    return picture.pixels[..., 0]


def command_line(monkeypatch, capsys, *paths, model=None, **given):
    values = {"workdir": "runs/a", "trial": None, "json": False, "invert": False, "fit": False}
    monkeypatch.setattr(predict.flags, "FLAGS", SimpleNamespace(**{**values, **given}))
    monkeypatch.setattr(predict.checkpoints, "load_trained", lambda *_: model or trained())
    try:
        predict.main(["predict", *paths])
        status = 0
    except SystemExit as stopped:
        status = 1
        print(stopped.code, file=sys.stderr)
    return status, *capsys.readouterr()


def test_probabilities_are_the_softmax_of_the_logits_of_normalised_padded_images():
    model = trained()
    images = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 1), np.uint8)
    labels, probabilities = predict.classify(model, images)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))).astype(np.float64) / 255 - 0.1
    thirds = [padded[:, :, part] for part in (slice(0, 11), slice(11, 22), slice(22, 32))]
    logits = 10 * np.stack([third.mean((1, 2, 3)) for third in thirds], 1)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
    np.testing.assert_array_equal(labels, expected.argmax(1))


def test_result_of_an_image_does_not_depend_on_its_batch():
    model = trained()
    count = predict.BATCH_SIZE + 3
    images = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 1), np.uint8)
    labels, probabilities = predict.classify(model, images)
    assert labels.shape == (count,)
    np.testing.assert_array_equal(predict.classify(model, images[-2:])[1], probabilities[-2:])
    assert predict.classify(model, images[:0])[1].shape == (0, 3)


def test_padded_images_are_classified_as_they_are():
    images = np.stack([bar(third) for third in range(3)])[..., None]
    native, padded = (predict.classify(trained(), x)[1] for x in (images, data.pad(images)))
    np.testing.assert_array_equal(native, padded)


def test_classify_refuses_images_of_another_size():
    with pytest.raises(ValueError, match="30x30x1, but the network takes 28x28 or 32x32"):
        predict.classify(trained(), np.zeros((1, 30, 30, 1), np.uint8))


def test_a_model_that_diverged_is_no_classifier():
    model = trained()
    model.params = {"scale": jnp.float32(jnp.nan)}
    with pytest.raises(ValueError, match="thirds-0 gives no finite probabilities"):
        predict.classify(model, np.zeros((1, SIDE, SIDE, 1), np.uint8))


def test_png_and_jpeg_files_are_classified_in_the_order_given(tmp_path):
    paths = [
        save(tmp_path / "b.png", bar(2)),
        save(tmp_path / "a.JPG", bar(0)),
        save(tmp_path / "c.jpeg", bar(1), "RGB"),
    ]
    assert classes(paths) == ["right", "left", "middle"]


def test_images_are_padded_never_resized(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8)
    drawn = only(save(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(drawn[2:-2, 2:-2], pixels)
    assert drawn.sum() == pixels.sum()
    np.testing.assert_array_equal(only(save(tmp_path / "b.png", drawn)), drawn)


def test_a_folder_is_read_by_name_without_what_is_no_image(tmp_path):
    folder = tmp_path / "digits"
    (folder / "more").mkdir(parents=True)
    save(folder / "2.png", bar(1))
    save(folder / "1.png", bar(0))
    save(folder / "more" / "3.jpg", bar(2))
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    assert classes([str(folder)]) == ["left", "middle", "right"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_idx_files_are_classified_image_by_image(tmp_path, compress):
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(compress(formats.to_idx(np.stack([bar(third) for third in (2, 0)]))))
    pictures = predict.read_pictures(trained(), [str(path)])
    assert [picture.index for picture in pictures] == [0, 1]
    assert classes([str(path)]) == ["right", "left"]
    assert classes([str(tmp_path)]) == ["right", "left"]


def test_colour_is_made_grey_and_grey_colour(tmp_path):
    grey, colour = save(tmp_path / "a.png", bar(1)), save(tmp_path / "b.png", bar(1), "RGB")
    assert classes([grey, colour]) == ["middle", "middle"]
    assert classes([grey, colour], trained(channels=3)) == ["middle", "middle"]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    pixels = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 83
    drawn = only(save(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(drawn[2:-2, 2:-2], pixels // 256)


@pytest.mark.parametrize(("ink", "ground"), [(255, 0), (0, 255)])
def test_transparency_is_laid_on_a_ground_that_the_ink_stands_out_from(tmp_path, ink, ground):
    opacity = bar(0)
    pixels = np.dstack([np.full_like(opacity, ink), opacity])
    drawn = only(save(tmp_path / "a.png", pixels))[2:-2, 2:-2]
    np.testing.assert_array_equal(drawn, np.where(opacity, ink, ground))


def test_dark_digits_are_inverted_only_when_asked(tmp_path):
    path = save(tmp_path / "a.png", 255 - bar(2))
    np.testing.assert_array_equal(only(path)[2:-2, 2:-2], 255 - bar(2))
    np.testing.assert_array_equal(only(path, invert=True)[2:-2, 2:-2], bar(2))


def test_dark_on_light_gives_a_hint_on_stderr(tmp_path, monkeypatch, capsys):
    light, dark = save(tmp_path / "a.png", 255 - bar(2)), save(tmp_path / "b.png", bar(2))
    status, out, error = command_line(monkeypatch, capsys, light, dark)
    assert (status, len(out.splitlines())) == (0, 3)
    assert error == (
        f"hint: {light} looks dark on light, but the network learned light on dark; try --invert\n"
    )
    assert command_line(monkeypatch, capsys, dark)[2] == ""
    assert command_line(monkeypatch, capsys, light, invert=True)[2] == ""


def test_colour_images_give_no_hint(tmp_path, monkeypatch, capsys):
    path = save(tmp_path / "a.png", 255 - bar(2), "RGB")
    assert command_line(monkeypatch, capsys, path, model=trained(channels=3))[2] == ""


def test_text_is_a_line_an_image(tmp_path, monkeypatch, capsys):
    path = save(tmp_path / "a.png", bar(1))
    status, out, error = command_line(monkeypatch, capsys, path)
    head, line = (text.split() for text in out.splitlines())
    assert (status, error) == (0, "")
    assert head == ["file", "class", "probability"]
    assert line[:2] == [path, "middle"]
    assert 1 / 3 < float(line[2]) <= 1


def test_json_is_an_object_a_line(tmp_path, monkeypatch, capsys):
    png, idx = save(tmp_path / "a.png", bar(1)), tmp_path / "x.idx"
    idx.write_bytes(formats.to_idx(np.stack([bar(2), bar(0)])))
    status, out, _ = command_line(monkeypatch, capsys, png, str(idx), json=True)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [(row["file"], row["index"], row["class"], row["label"]) for row in rows] == [
        (png, None, "middle", 1),
        (str(idx), 0, "right", 2),
        (str(idx), 1, "left", 0),
    ]
    for row in rows:
        assert sum(row["probabilities"]) == pytest.approx(1)
        assert row["probability"] == max(row["probabilities"]) == row["probabilities"][row["label"]]


def broken_files(folder):
    whole = save(folder / "whole.png", bar(0))
    files = {
        "text.png": b"no image",
        "empty.png": b"",
        "cut.png": Path(whole).read_bytes()[:60],
        "cut-idx3-ubyte": formats.to_idx(bar(0)[None])[:-5],
        "cut-idx3-ubyte.gz": gzip.compress(formats.to_idx(bar(0)[None]))[:-9],
        "labels-idx1-ubyte": formats.to_idx(np.arange(5, dtype=np.uint8)),
        "none.idx": formats.to_idx(np.zeros((0, SIDE, SIDE), np.uint8)),
        "numbers.idx": formats.to_idx(np.zeros((1, SIDE, SIDE), np.int32)),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    save(folder / "large.png", np.zeros((30, 40), np.uint8))
    return {
        "text.png": "is not a PNG, JPEG or IDX file of images",
        "empty.png": "is not a PNG, JPEG or IDX file of images",
        "cut.png": "is broken",
        "cut-idx3-ubyte": "is cut short",
        "cut-idx3-ubyte.gz": "is no valid gzip file",
        "labels-idx1-ubyte": "has the magic number",
        "none.idx": "holds no image",
        "numbers.idx": "holds int32",
        "large.png": "is 30 high and 40 wide, but the network takes 28x28 or 32x32; --fit",
        "absent.png": "does not exist",
    }


def test_what_cannot_be_read_is_named_with_the_reason_in_one_line(tmp_path, monkeypatch, capsys):
    for name, problem in broken_files(tmp_path).items():
        path = tmp_path / name
        status, out, error = command_line(monkeypatch, capsys, str(path))
        assert (status, out) == (1, "")
        assert error.startswith(str(path))
        assert problem in error
        assert error.count("\n") == 1


def test_one_broken_file_in_a_folder_is_named_and_nothing_is_printed(tmp_path, monkeypatch, capsys):
    for name in ("1.png", "2.png", "3.png"):
        save(tmp_path / name, bar(0))
    (tmp_path / "2.png").write_bytes(b"no image")
    status, out, error = command_line(monkeypatch, capsys, str(tmp_path))
    assert (status, out) == (1, "")
    assert error == (
        f"1 of 3 cannot be classified: {tmp_path / '2.png'} is not a PNG, JPEG or IDX file of "
        "images\n"
    )


def test_a_folder_without_images_is_an_error(tmp_path, monkeypatch, capsys):
    status, _, error = command_line(monkeypatch, capsys, str(tmp_path))
    assert status == 1
    assert "holds no .png, .jpg or .jpeg file" in error


def test_command_line_without_images_or_workdir_is_an_error(monkeypatch, capsys):
    assert command_line(monkeypatch, capsys)[0] == 1
    assert "--workdir is missing" in command_line(monkeypatch, capsys, "a.png", workdir=None)[2]


def test_an_untrained_workdir_is_named_in_one_line(tmp_path):
    path = save(tmp_path / "a.png", bar(0))
    command = [sys.executable, "-m", "lenet.predict", f"--workdir={tmp_path}", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert str(tmp_path) in done.stderr


def test_fit_brings_any_size_to_the_networks(tmp_path):
    tall = np.zeros((300, 90), np.uint8)
    tall[40:240, 20:60] = 255
    fitted = only(save(tmp_path / "a.png", tall), fit=True)[2:-2, 2:-2]
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[4:24, 12:16] = 255  # 200 x 40 becomes 20 x 4, its middle within half a pixel of 14
    np.testing.assert_array_equal(fitted, expected)


def test_fit_of_a_colour_image_resizes_it(tmp_path):
    pixels = np.kron(bar(2), np.ones((3, 2), np.uint8))
    assert classes([save(tmp_path / "a.png", pixels)], trained(channels=3), fit=True) == ["right"]


def test_fit_of_a_blank_image_is_an_error(tmp_path, monkeypatch, capsys):
    path = save(tmp_path / "a.png", np.zeros((40, 40), np.uint8))
    status, _, error = command_line(monkeypatch, capsys, path, fit=True)
    assert (status, error) == (1, f"{path}: all its pixels are alike, so there is no ink to fit\n")


strokes = st.tuples(st.integers(0, 39), st.integers(0, 39), st.integers(1, 12), st.integers(1, 12))


@settings(deadline=None, max_examples=50)
@given(st.lists(strokes, min_size=1, max_size=4), st.integers(0, 25), st.integers(0, 25))
def test_fit_does_not_depend_on_where_the_ink_is(rectangles, down, right):
    drawn = np.zeros((52, 52), np.uint8)
    for top, left, height, width in rectangles:
        drawn[top : top + height, left : left + width] = 255
    moved = np.pad(drawn, ((down, 3), (right, 1)))
    fitted = predict.fit_digit(drawn)
    np.testing.assert_array_equal(fitted, predict.fit_digit(moved))
    rows, columns = np.flatnonzero(fitted.any(1)), np.flatnonzero(fitted.any(0))
    assert max(np.ptp(rows), np.ptp(columns)) < 20


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 5), st.integers(0, 2))
def test_fit_does_not_depend_on_the_size_of_the_ink(factor, third):
    ink = bar(third)
    larger = predict.fit_digit(np.kron(ink, np.ones((factor, factor), np.uint8)))
    difference = larger.astype(int) - predict.fit_digit(ink)
    assert np.abs(difference).max() <= 1
