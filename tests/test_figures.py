import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from lenet import figures

SVG = "{http://www.w3.org/2000/svg}"


def curve(label, *values, **band):
    return figures.Curve(label, np.arange(1, len(values) + 1), np.array(values, float), **band)


def texts(figure):
    root = ElementTree.fromstring(figures.to_svg(figure))
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def embedded_images(figure):
    root = ElementTree.fromstring(figures.to_svg(figure))
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(value.split(",")[1]))).convert("RGB"))
        for element in root.iter(f"{SVG}image")
        for name, value in element.attrib.items()
        if name.endswith("href")
    ]


def every_figure():
    counts = np.array([[8, 1], [0, 7]])
    pixels = np.zeros((3, 4, 4, 1), np.uint8)
    row = figures.ErrorsOfVariant("a", (0.01, 0.02), 0.015, (0.0, 0.08), diverged=1)
    band = {"low": np.array([0.1, 0.1]), "high": np.array([0.4, 0.3])}
    return {
        "learning_curves": figures.learning_curves(
            [curve("train", 0.3, 0.2, **band)], title="T", ylabel="error", percent=True
        ),
        "errors_by_variant": figures.errors_by_variant([row], title="T"),
        "confusion_matrix": figures.confusion_matrix(counts, ("0", "1"), title="T"),
        "image_grid": figures.image_grid(pixels, ["0→1 50 %"] * 3, title="T"),
    }


@pytest.mark.parametrize("name", every_figure())
def test_drawing_twice_gives_identical_bytes_without_a_date(name):
    first, second = (figures.to_svg(every_figure()[name]) for _ in range(2))
    assert first == second
    assert "<metadata" not in first
    assert "date" not in first.lower()


@pytest.mark.parametrize("name", every_figure())
def test_every_colour_has_a_name_that_a_dark_page_can_exchange(name):
    svg = figures.to_svg(every_figure()[name])
    colors = set(re.findall(r"#[0-9a-f]{6}\b", svg))
    assert "#1f2429" in colors
    assert colors <= set(figures.PALETTE.values())


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((10.0, 1.0, 0.5), "log"),
        ((1.0, 0.5, 0.4), "linear"),
        ((10.0, 1.0, 0.0), "linear"),
        ((np.nan, np.nan), "linear"),
    ],
)
def test_only_wide_positive_ranges_are_drawn_on_a_log_scale(values, scale):
    figure = figures.learning_curves([curve("train", *values)], title="T", ylabel="loss")
    assert figure.axes[0].get_yscale() == scale


def test_errors_are_drawn_as_percent():
    figure = figures.learning_curves(
        [curve("test", 0.02, 0.01)], title="T", ylabel="error", percent=True
    )
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [2, 1])
    assert figure.axes[0].get_ylabel() == "error (%)"


def test_labels_of_lines_that_end_together_do_not_overlap():
    lines = [curve(name, 1.0, 0.5) for name in ("train", "test", "validation")]
    figure = figures.learning_curves(lines, title="T", ylabel="loss")
    heights = sorted(label.xy[1] for label in figure.axes[0].texts)
    assert len(heights) == 3
    assert min(np.diff(heights)) > 0.07


def test_a_curve_that_never_was_finite_leaves_the_others_drawn():
    lines = [curve("train", np.nan, np.nan), curve("test", 0.2, 0.1)]
    figure = figures.learning_curves(lines, title="T", ylabel="loss")
    assert [label.get_text() for label in figure.axes[0].texts] == ["test"]


def test_more_curves_than_colours_differ_in_line_style():
    figure = figures.learning_curves(
        [curve(f"variant {index}", 0.2, 0.1) for index in range(12)], title="T", ylabel="loss"
    )
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 12


def test_every_seed_is_a_dot_and_every_diverged_one_is_counted():
    rows = [
        figures.ErrorsOfVariant("a", (0.01, 0.02, 0.03), 0.02, (0.0, 0.04)),
        figures.ErrorsOfVariant("b", (), diverged=2),
    ]
    figure = figures.errors_by_variant(rows, title="T")
    dots = [line for line in figure.axes[0].lines if str(line.get_gid()).startswith("seeds")]
    np.testing.assert_allclose(dots[0].get_xdata(), [1, 2, 3])
    assert len(dots[1].get_xdata()) == 0
    assert "2 diverged" in texts(figure)


def test_confusion_matrix_prints_the_counts_that_are_not_zero():
    counts = np.array([[5, 2, 0], [0, 7, 0], [1, 0, 9]])
    figure = figures.confusion_matrix(counts, ("0", "1", "2"), title="T")
    printed = {
        (round(text.get_position()[1]), round(text.get_position()[0])): int(text.get_text())
        for text in figure.axes[0].texts
    }
    assert printed == {(0, 0): 5, (0, 1): 2, (1, 1): 7, (2, 0): 1, (2, 2): 9}


def test_confusion_matrix_of_many_classes_is_drawn_without_counts():
    names = [str(index) for index in range(60)]
    figure = figures.confusion_matrix(np.ones((60, 60), int), names, title="T")
    assert not figure.axes[0].texts


@pytest.mark.parametrize("count", [1, 12, 13])
def test_image_grid_draws_each_image_dark_on_light_with_its_caption(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 5, 4, 1), np.uint8)
    captions = [f"{index}→0 9 %" for index in range(count)]
    figure = figures.image_grid(images, captions, title="T")
    assert texts(figure) == ["T", *captions]
    drawn = embedded_images(figure)
    assert len(drawn) == count
    for pixels, image in zip(drawn, images, strict=True):
        np.testing.assert_array_equal(pixels[..., 0], 255 - image[..., 0])


def test_image_grid_leaves_colours_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    drawn = embedded_images(figures.image_grid(images, ["cat\n→dog 9 %"] * 2, title="T"))
    np.testing.assert_array_equal(np.stack(drawn), images)


def test_image_grid_refuses_captions_that_do_not_match():
    with pytest.raises(ValueError, match="2 images cannot have 1 captions"):
        figures.image_grid(np.zeros((2, 4, 4, 1), np.uint8), ["a"], title="T")
