import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from lenet import figures

SVG = "{http://www.w3.org/2000/svg}"


TUNED = figures.Sensitivity(
    "a", (0.001, 0.01, 0.1), ((0.02, 0.03), (0.01, 0.02), ()), (0, 0, 2), chosen=0.01
)


# The error falls by 0.4 points and rises by 0.1; the last step cannot be told.
PATH = (
    figures.Step("a", 0.012, (0.011, 0.013)),
    figures.Step("b", 0.008, None, figures.Difference("b", -0.004, (-0.005, -0.003), True)),
    figures.Step("c", 0.009, None, figures.Difference("c", 0.001, (0.0005, 0.0015), True), 2),
    figures.Step("d", 0.0095, None, figures.Difference("d", 0.0005, (-0.001, 0.002))),
)
COSTS = (
    figures.Cost("slow", 100.0, 0.008, (0.007, 0.009), best=True),
    figures.Cost("worse", 110.0, 0.01, named=False),
    figures.Cost("quick", 10.0, 0.012, best=True),
)


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
        "passes": figures.learning_curves(
            [curve("test", 0.3, 0.2)], title="T", ylabel="error", references={"1998": 0.0095}
        ),
        "errors_by_variant": figures.errors_by_variant([row], title="T"),
        "confusion_matrix": figures.confusion_matrix(counts, ("0", "1"), title="T"),
        "image_grid": figures.image_grid(pixels, ["0→1 50 %"] * 3, title="T"),
        "published": figures.errors_by_variant([row], title="T", references={"paper": 0.0095}),
        "differences": figures.differences(
            [
                figures.Difference("a", 0.01, (0.005, 0.015), True),
                figures.Difference("b", 0.0),
            ],
            title="T",
            xlabel="points",
        ),
        "factor_grid": figures.factor_grid(
            [[figures.Cell(0.01, (0.0, 0.02)), figures.Cell(None)]],
            ["tanh"],
            ["max", "average"],
            title="T",
            ylabel="activation",
            xlabel="pooling",
        ),
        "waterfall": figures.waterfall(PATH, title="T"),
        "changes": figures.changes(
            [step.change for step in PATH if step.change], title="T", xlabel="points"
        ),
        "errors_against_seconds": figures.errors_against_seconds(COSTS, title="T"),
        "sensitivity": figures.sensitivity([TUNED] * 3, title="T", xlabel="rate", ylabel="error"),
        "bitmaps": figures.bitmaps(
            np.ones((2, 12, 7)), np.zeros((2, 12, 7)), ["0", "1"], title="T"
        ),
        "distorted": figures.distorted(pixels, pixels[None], ["0", "1", "2"], title="T"),
        "signed_images": figures.signed_images(
            np.array([[[-1.0, 1.0]], [[0.0, 0.5]]]), ["a", "b"], title="T"
        ),
        "shares": figures.shares(
            ["a", "b"], [0.958, 0.06], title="T", xlabel="share (%)", reference=("the note", 0.8)
        ),
        "portrait": figures.portrait(
            np.ones((5, 5, 1, 2)), {"c1": np.ones((2, 4, 4)), "s2": np.zeros((2, 2, 2))}, title="T"
        ),
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
        ((1.0, 0.5, 0.34), "linear"),
        ((1.0, 0.5, 0.33), "log"),
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


def test_a_variant_far_from_the_others_leaves_them_room_and_is_told():
    near = [
        figures.ErrorsOfVariant(str(row), (0.010 + 0.001 * row, 0.012 + 0.001 * row))
        for row in range(6)
    ]
    far = figures.ErrorsOfVariant("far", (0.013, 0.8865))
    figure = figures.errors_by_variant([*near, far], title="T")
    low, high = figure.axes[0].get_xlim()
    assert 0.9 < low < 1.0
    assert 1.7 < high < 1.8
    assert "to 88.6 \N{RIGHTWARDS ARROW}" in texts(figure)
    whole = figures.errors_by_variant(near, title="T")
    assert not [text for text in texts(whole) if text.startswith("to ")]


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


def test_curves_can_run_over_seconds():
    line = figures.Curve("a", np.array([1.5, 2.5]), np.array([0.2, 0.1]))
    axes = figures.learning_curves([line], title="T", ylabel="error", xlabel="seconds").axes[0]
    assert axes.get_xlabel() == "seconds"
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [1.5, 2.5])


def test_bands_are_drawn_for_as_many_curves_as_there_are_colours():
    band = {"low": np.array([0.1, 0.1]), "high": np.array([0.4, 0.3])}
    for count, bands in ((6, 6), (7, 0)):
        lines = [curve(f"variant {index}", 0.3, 0.2, **band) for index in range(count)]
        axes = figures.learning_curves(lines, title="T", ylabel="error").axes[0]
        assert len(axes.collections) == bands


def test_published_errors_are_lines_that_a_legend_explains():
    row = figures.ErrorsOfVariant("a", (0.01, 0.02), 0.015)
    figure = figures.errors_by_variant([row], title="T", references={"1998": 0.0095, "b": 0.011})
    places = [line.get_xdata()[0] for line in figure.axes[0].lines[:2]]
    assert places == pytest.approx([0.95, 1.1])
    assert {"1998: 0.95 %", "b: 1.10 %"} <= set(texts(figure))


def test_only_established_differences_are_filled():
    rows = [
        figures.Difference("a", 0.01, (0.005, 0.015), established=True),
        figures.Difference("b", 0.001, (-0.004, 0.006)),
        figures.Difference("c", 0.002),
    ]
    axes = figures.differences(rows, title="T", xlabel="points").axes[0]
    dots = [line for line in axes.lines if str(line.get_gid()).startswith(("established", "open"))]
    assert [dot.get_gid() for dot in dots] == ["established-0", "open-1", "open-2"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == pytest.approx([1.0, 0.1, 0.2])
    fills = [dot.get_markerfacecolor() == dot.get_color() for dot in dots]
    assert fills == [True, False, False]
    ends = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2][1:]
    np.testing.assert_allclose(ends, [[0.5, 1.5], [-0.4, 0.6]])


def test_the_bars_of_a_path_lead_from_one_error_to_the_next():
    figure = figures.waterfall(PATH, title="T")
    left, right = figure.axes
    bars = [(bar.get_x(), bar.get_width()) for bar in left.patches]
    np.testing.assert_allclose(bars, [(1.2, -0.4), (0.8, 0.1), (0.9, 0.05)])
    means = [line.get_xdata()[0] for line in left.lines if str(line.get_gid()).startswith("step")]
    assert means == pytest.approx([1.2, 0.8, 0.9, 0.95])
    told = [line.get_gid() for line in right.lines if "-" in str(line.get_gid())]
    assert told == ["better-1", "worse-2", "open-3"]
    assert {"c (2 diverged)", "-0.40 (-0.50 to -0.30)", "+0.05 (-0.10 to +0.20)"} <= set(
        texts(figure)
    )


def test_better_worse_and_unknown_differ_in_more_than_colour():
    axes = figures.waterfall(PATH, title="T").axes[1]
    dots = [line for line in axes.lines if "-" in str(line.get_gid())]
    assert len({dot.get_color() for dot in dots}) == 3
    assert len({dot.get_marker() for dot in dots}) == 3


def test_a_step_that_always_diverged_leaves_the_others_drawn():
    lost = figures.Step("lost", None, diverged=3)
    figure = figures.waterfall((PATH[0], lost, PATH[1]), title="T")
    assert "lost (3 diverged)" in texts(figure)
    assert len(figure.axes[0].patches) == 0


def test_a_difference_far_out_is_told_in_numbers_and_does_not_hide_the_others():
    far = figures.Difference("far", 0.88, (0.87, 0.89), True)
    rows = [*(step.change for step in PATH[1:]), far]
    figure = figures.changes(rows, title="T", xlabel="points")
    low, high = figure.axes[0].get_xlim()
    assert 0.5 < high < 1
    assert low == -high
    assert "+88.00 (+87.00 to +89.00)" in texts(figure)


def test_only_named_variants_are_numbered_and_only_the_best_are_filled():
    figure = figures.errors_against_seconds(COSTS, title="T")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["1", "2"]
    assert {"1: slow, 0.80 %, 100 s", "2: quick, 1.20 %, 10 s"} <= set(texts(figure))
    dots = [line for line in axes.lines if str(line.get_gid()).startswith("cost")]
    assert [dot.get_gid() for dot in dots] == ["cost-best", "cost-other", "cost-best"]
    assert axes.get_xscale() == "log"
    assert axes.get_yscale() == "linear"


def test_the_grid_prints_means_and_intervals_and_colours_the_greatest_error_most():
    cells = [
        [figures.Cell(0.0100, (0.0090, 0.0110)), figures.Cell(0.0150, (0.0140, 0.0160))],
        [figures.Cell(0.0125), figures.Cell(None)],
    ]
    figure = figures.factor_grid(
        cells, ["tanh", "relu"], ["max", "average"], title="T", ylabel="y", xlabel="x"
    )
    printed = [text.get_text() for text in figure.axes[0].texts]
    assert printed == ["1.00", "0.90 to 1.10", "1.50", "1.40 to 1.60", "1.25", "diverged"]
    strengths = [patch.get_alpha() for patch in figure.axes[0].patches[:3]]
    assert strengths[0] < strengths[2] < strengths[1]


def test_every_tuned_seed_is_a_dot_the_chosen_value_ringed_and_divergence_said():
    figure = figures.sensitivity([TUNED], title="T", xlabel="rate", ylabel="validation error")
    axes = figure.axes[0]
    dots = [
        (x, y)
        for line in axes.lines
        if str(line.get_gid()).startswith("seeds")
        for x, y in line.get_xydata()
    ]
    np.testing.assert_allclose(dots, [(0.001, 2), (0.001, 3), (0.01, 1), (0.01, 2)])
    (ring,) = [line for line in axes.lines if line.get_gid() == "chosen-0"]
    np.testing.assert_allclose(ring.get_xydata(), [(0.01, 1.5)])
    assert axes.get_xscale() == "log"
    assert "2 diverged" in texts(figure)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_panel_a_variant(count):
    panels = [
        figures.Sensitivity(f"v{k}", (0.0, 1.0), ((0.1,), (0.2,)), (0, 0)) for k in range(count)
    ]
    figure = figures.sensitivity(panels, title="T", xlabel="decay", ylabel="error")
    drawn = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in drawn] == [f"v{k}" for k in range(count)]
    assert drawn[0].get_xscale() == "linear"


def test_a_portrait_paints_signs_in_colours_and_magnitudes_in_strength():
    maps = np.array([[[2.0, -1.0], [0.0, 0.0]]])
    figure = figures.portrait(np.zeros((5, 5, 1, 1)), {"c1": maps}, title="T")
    painted = {image.get_gid(): image.get_array() for image in figure.axes[0].images}
    assert list(painted) == ["kernels-0", "c1-0"]
    np.testing.assert_allclose(painted["c1-0"][..., 3], [[1, 0.5], [0, 0]])
    blue, orange = painted["c1-0"][0, 0, :3], painted["c1-0"][0, 1, :3]
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    assert not painted["kernels-0"][..., 3].any()


def test_kernels_on_colours_are_shown_in_colour_with_zero_mid_grey():
    kernels = np.zeros((5, 5, 3, 2))
    kernels[0, 0, 0, 0], kernels[0, 0, 2, 0] = 4.0, -4.0
    (first, second) = figures.portrait(kernels, {}, title="T").axes[0].images
    np.testing.assert_allclose(first.get_array()[0, 0], [1, 0.5, 0])
    np.testing.assert_allclose(second.get_array(), 0.5)


def test_a_long_title_takes_the_lines_it_needs():
    row = figures.ErrorsOfVariant("a", (0.01,), 0.01)
    title = " ".join(["scaled_tanh and subsampling cannot be told apart"] * 3)
    shown = figures.errors_by_variant([row], title=title)._suptitle.get_text()
    assert "\n" in shown
    assert shown.replace("\n", " ") == title
