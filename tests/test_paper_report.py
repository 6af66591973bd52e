import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from lenet import checkpoints, codes, figures, model, report
from lenet.distortions import Distortion
from lenet.statistics import paired_comparison
from lenet.templates import bitmaps, distorted, document, paper, run
from tests.test_figures import embedded_images, texts
from tests.test_report import edit, finished_run, mistaken, sweep_run, written

CONFIG = {
    "normalization": "lecun",
    "augmentation": "none",
    "translation": 2.0,
    "scaling": 0.15,
    "squeezing": 0.15,
    "shear": 0.3,
    "activation": "scaled_tanh",
    "pooling": "subsampling",
    "connections": "table1",
    "head": "rbf",
    "loss": "rbf_mse",
    "optimizer": "sdlm",
    "learning_rate": 5e-4,
    "damping": 0.02,
    "schedule": "passes_1998",
    "order": "constant",
    "batch_size": 1,
    "num_epochs": 20,
    "train_examples": 0,
}
STEPS = {"min": 8e-5, "q05": 2e-4, "median": 1e-3, "q95": 2e-3, "max": 0.01}


def summarized(**choices):
    """What `summary.json` says of the paper's network, but for these choices."""
    choices = {"pooling": "subsampling", "connections": "table1", "head": "rbf", **choices}
    return dataclasses.asdict(model.summarize(model.LeNet(**choices), (32, 32, 1)))


NETWORK = summarized()


def trained(
    variants,
    *,
    epochs=20,
    early=None,
    on_the_fly=0.004,
    again=0.002,
    name="mnist",
    validation=0,
    steps=None,
    models=None,
    overrides=None,
    **config,
):
    """A run: of each variant the test errors of its seeds at the last epoch, None for diverged."""
    rows, metrics = [], {}
    for variant, errors in variants.items():
        for seed, error in enumerate(errors):
            identity, lost = f"{variant}/seed={seed}", error is None
            rows.append(
                {
                    "id": identity,
                    "variant": variant,
                    "overrides": {**(overrides or {}).get(variant, {}), "seed": seed},
                    "seed": seed,
                    "status": "diverged" if lost else "done",
                    "epochs": epochs,
                    "train_error": None if lost else again,
                    "validation_error": None,
                    "test_error": error,
                }
            )
            metrics[identity] = [
                {
                    "epoch": epoch,
                    "train_loss": None if lost and epoch > 1 else 1.0,
                    "train_error": None if lost and epoch > 1 else on_the_fly,
                    "test_error": early[seed] if early and epoch == 10 else error,
                    "diverged": lost and epoch > 1,
                }
                for epoch in range(1, epochs + 1)
            ]
            if steps:  # Of the first and the last epoch of each seed.
                for line, spread in zip(metrics[identity][:: epochs - 1], steps[seed], strict=True):
                    line["step_sizes"] = spread
    dataset = {
        "name": name,
        "validation_examples": validation,
        "test_examples": 10_000,
        "class_names": [str(digit) for digit in range(10)],
        "image_shape": [32, 32, 1],
    }
    summary = {
        "dataset": dataset,
        "trials": rows,
        "variants": [{"name": variant, "tuned": {}} for variant in variants],
        "models": {variant: (models or {}).get(variant, NETWORK) for variant in variants},
    }
    labels = np.arange(20, dtype=np.int32) % 10
    none = np.zeros((0, 20))
    fields = {**CONFIG, **config, "num_epochs": epochs}
    return run.Run(
        fields,
        dataset,
        summary,
        metrics,
        (),
        labels,
        none.astype(np.int32),
        none.astype(np.float32),
    )


def text_of(section):
    return document.to_markdown("T", (section,))


def rows_of(section):
    """Every row of every table, by its first cell."""
    lines = [line[2:-2].split(" | ") for line in text_of(section).splitlines() if line[:2] == "| "]
    return {cells[0]: cells[1:] for cells in lines}


def plots_of(section):
    return {plot.name: plot for plot in document.plots((section,))}


def test_the_layers_of_the_paper_add_up_to_its_totals():
    parameters, connections = (sum(column) for column in zip(*paper.LAYERS.values(), strict=True))
    assert (parameters, connections) == (60_000, 340_908)


def test_parameters_and_connections_stand_beside_the_papers_layer_by_layer():
    section = paper.section(trained({"base": [0.01]}))
    assert "8 of 8 rows are the same" in text_of(section)
    rows = rows_of(section)
    assert rows["c3"] == ["1,516", "1,516", "151,600", "151,600", "yes"]
    assert rows["total"] == ["60,000", "60,000", "340,908", "340,908", "yes"]


def test_another_network_is_not_said_to_be_the_same():
    models = {"base": summarized(pooling="max", connections="full")}
    section = paper.section(trained({"base": [0.01]}, models=models))
    rows = rows_of(section)
    # A kernel of 5x5 for each of 6 x 16 pairs of maps, and 16 biases; pooling has no parameters.
    assert rows["c3"] == ["1,516", "2,416", "151,600", "241,600", "no"]
    assert rows["s2"][:2] == ["12", "0"]
    assert rows["total"][:2] == ["60,000", "60,856"]
    # c1 c5 f6 output.
    assert "4 of 8 rows are the same" in text_of(section)


def test_the_test_error_has_its_interval_and_whether_the_papers_lies_in_it():
    row = rows_of(paper.section(trained({"base": [0.009, 0.010, 0.011]})))["test error, pass 20"]
    # Student's t with two degrees of freedom: 4.303 * 0.1 / sqrt(3) = 0.248 points.
    assert row == ["0.95 %, pass 20", "1.00 %", "3", "0.75 % to 1.25 %", "yes"]


@pytest.mark.parametrize(
    ("ours", "uncertainty", "expected"),
    [
        ((0.009, 0.010, 0.011), 0.0, "yes"),
        ((0.011, 0.0112, 0.0111), 0.0, "no: ours is higher"),
        ((0.0111, 0.0112, 0.0113), 0.001, "no: ours is higher"),
        ((0.0103, 0.0104, 0.0105), 0.001, "no: higher (± 0.10: yes)"),
        ((0.0070, 0.0071, 0.0072), 0.001, "no: ours is lower"),
        ((0.0086, 0.0087, 0.0088), 0.001, "no: lower (± 0.10: yes)"),
        ((0.0095,), 0.001, "no interval: one seed"),
        ((0.0095, 0.0095), 0.001, "no interval: all the same"),
    ],
)
def test_whether_the_papers_number_lies_in_our_interval_is_put_into_words(
    ours, uncertainty, expected
):
    assert paper.lies_within(0.0095, ours, uncertainty) == expected


def test_both_training_errors_are_shown_and_told_apart():
    rows = rows_of(paper.section(trained({"base": [0.01, 0.01]}, on_the_fly=0.0041, again=0.0023)))
    assert rows["training error on the fly, pass 19"][:2] == ["0.35 %, pass 19", "0.41 %"]
    assert rows["training error again, pass 20"][:2] == ["0.35 %, pass 19", "0.23 %"]


def test_a_run_without_training_errors_on_the_fly_shows_the_other_alone():
    rows = rows_of(paper.section(trained({"base": [0.01, 0.01]}, on_the_fly=None)))
    assert [name for name in rows if "training error" in name] == ["training error again, pass 20"]


def test_what_became_of_the_test_error_after_ten_passes_is_paired_by_seed():
    errors, early = [0.0090, 0.0110, 0.0100], [0.0093, 0.0112, 0.0104]
    rows = rows_of(paper.section(trained({"base": errors}, early=early)))
    assert rows["test error, pass 10"][:2] == ["0.95 %, pass 10", "1.03 %"]
    # Changes of -0.03, -0.02 and -0.04 points: -0.03 +- 4.303 * 0.01 / sqrt(3).
    change = ["-0.03", "3", "-0.05 to -0.01"]
    assert rows["its change to pass 20, points"] == [
        "stable: 0",
        *change,
        "no: it still falls",
    ]
    assert rows["overtraining to pass 20, points"] == [
        "none",
        *change,
        "yes: no rise can be told",
    ]


@pytest.mark.parametrize(
    ("changes", "stable", "no_rise"),
    [
        ((0.01, 0.02, 0.03), "yes: no change can be told", "yes: no rise can be told"),
        ((0.02, 0.021, 0.022), "no: it rises", "no: it rises"),
        ((-0.02, -0.021, -0.022), "no: it still falls", "yes: no rise can be told"),
        ((0.02,), "no interval: one seed", "no interval: one seed"),
        ((0.02, 0.02), "no interval: all the same", "no interval: all the same"),
    ],
)
def test_a_change_of_the_test_error_is_put_into_words(changes, stable, no_rise):
    change = paired_comparison(changes, [0.0] * len(changes))
    assert paper.change_in_words(change) == stable
    assert paper.change_in_words(change, rise_only=True) == no_rise


def test_a_short_run_does_not_speak_to_what_comes_after_ten_passes():
    section = paper.section(trained({"base": [0.01, 0.02]}, epochs=4))
    assert "4 passes cannot speak to that" in text_of(section)
    assert not [name for name in rows_of(section) if "pass 10" in name]
    assert rows_of(section)["training error on the fly, pass 4"][0] == "0.35 %, pass 19"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"name": "mnist_5k"}, "its images are those of the subset mnist_5k"),
        ({"train_examples": 15_000}, "it was trained on the first 15,000 images"),
        ({"validation": 10_000}, "10,000 training images were held out"),
    ],
)
def test_errors_on_other_images_are_shown_but_not_compared(changed, reason):
    section = paper.section(trained({"base": [0.009, 0.011]}, **changed))
    assert reason in text_of(section)
    assert rows_of(section)["test error, pass 20"][-1] == "not to be compared"
    assert "1998" not in plots_of(section)["paper_passes"].svg
    assert rows_of(section)["total"][-1] == "yes"


def test_with_distortions_the_papers_other_numbers_count():
    section = paper.section(
        trained({"base": [0.0080, 0.0084, 0.0082]}, augmentation="distortions_1998")
    )
    rows = rows_of(section)
    assert rows["test error, pass 20"][:2] == ["0.80 %, pass 20", "0.82 %"]
    # 80, 84 and 82 of 10,000: 82 +- 4.303 * 2 / sqrt(3).
    assert rows["misclassified test images"] == ["82", "82.0", "3", "77.0 to 87.0", "yes"]
    assert not [name for name in rows if "training error" in name]
    assert "0.35 %" not in text_of(section)


def test_departures_from_the_paper_are_listed():
    as_described = text_of(paper.section(trained({"base": [0.01]})))
    assert "No field of the config departs from what the paper describes" in as_described
    assert "does not say; here it is rbf_mse." in as_described
    changed = {"damping": 0.5, "order": "fresh", "loss": "rbf_map", "rbf_j": 10.0}
    text = text_of(paper.section(trained({"base": [0.01]}, epochs=5, **changed)))
    assert (
        "describes in brackets: damping 0.5 (0.02), order fresh (constant), num epochs 5 (20)."
        in text
    )
    assert "here it is rbf_map with j = 10" in text


def test_fields_of_a_variant_count_as_much_as_those_of_the_config():
    readings = {"a": [0.01], "b": [0.02]}
    run_of_two = trained(readings, overrides={"b": {"damping": 0.5}})
    text = text_of(paper.section(run_of_two))
    assert text.count("damping 0.5 (0.02)") == 1
    assert run_of_two.fields_of("a")["damping"] == 0.02


def test_steps_of_the_optimizer_stand_beside_the_papers_range():
    steps = [({**STEPS, "min": low}, STEPS) for low in (6e-5, 8e-5)]
    section = paper.section(trained({"base": [0.01, 0.02]}, steps=steps))
    rows = rows_of(section)
    assert rows["smallest step, pass 1"][:2] == ["about 7e-05", "7e-05"]
    assert rows["smallest step, pass 1"][-1] == "yes"
    assert rows["greatest step, pass 1"][:2] == ["about 0.016", "0.01"]
    assert rows["first pass, the paper"] == ["7e-05", "-", "-", "-", "0.016"]
    assert rows["first pass, ours"] == ["7e-05", "0.0002", "0.001", "0.002", "0.01"]
    assert rows["last pass, ours"][0] == "8e-05"


@pytest.mark.parametrize("steps", [None, [(None, None)], [({"min": None}, None)]])
def test_without_steps_nothing_is_said_of_them(steps):
    section = paper.section(trained({"base": [0.01]}, steps=steps))
    assert "step" not in text_of(section)


def test_a_run_in_which_everything_diverged_has_its_counts_and_steps_but_no_errors():
    steps = [(STEPS, None)] * 2
    section = paper.section(trained({"base": [None, None]}, steps=steps))
    text = text_of(section)
    assert "**Every trial diverged** (2 of 2): the loss was no longer finite in pass 2." in text
    assert "60,000" in text
    assert "first pass, ours" in rows_of(section)
    assert not [name for name in rows_of(section) if "error" in name]
    assert not plots_of(section)


def test_seeds_that_diverged_are_counted_and_left_out():
    section = paper.section(trained({"base": [0.01, None, 0.02]}))
    assert "1 more seed diverged and is left out" in text_of(section)
    assert rows_of(section)["test error, pass 20"][2] == "2"


def test_only_networks_with_the_papers_codes_are_held_against_it():
    assert paper.section(trained({"base": [0.01]}, head="dense")) is None
    both = {"paper": [0.01, 0.02], "modern": [0.01, 0.01]}
    section = paper.section(trained(both, overrides={"modern": {"head": "dense"}}))
    assert (
        "paper: test error, pass 20, 1.50 % (the paper: 0.95 %, pass 20; in our interval: yes)"
        in (text_of(section))
    )
    assert "modern" not in text_of(section)
    assert list(plots_of(section)) == ["paper_passes_paper"]


def test_variants_that_share_their_network_share_its_table():
    readings = {"a": [0.01, 0.02], "b": [None, None]}
    text = text_of(paper.section(trained(readings)))
    assert text.count("| c3 |") == 1
    assert "b: every trial diverged" in text
    models = {"b": summarized(connections="full")}
    assert text_of(paper.section(trained(readings, models=models))).count("| c3 |") == 2


def test_error_against_passes_is_drawn_with_the_papers_errors():
    section = paper.section(trained({"base": [0.01, 0.012]}, early=[0.02, 0.02]))
    plot = plots_of(section)["paper_passes"]
    assert "test, 1998: 0.95 %" in plot.svg
    assert "training, 1998: 0.35 %" in plot.svg
    assert "Test error 1.10 % after 20 passes, 2.00 % after 10" in plot.svg
    assert "the mean over 2 seeds" in plot.caption


def test_published_errors_are_lines_across_the_curves():
    line = figures.Curve("test", np.arange(1, 4), np.array([0.1, 0.05, 0.01]))
    axes = figures.learning_curves(
        [line], title="T", ylabel="error", percent=True, references={"1998": 0.0095, "b": 0.002}
    ).axes[0]
    heights = [drawn.get_ydata()[0] for drawn in axes.lines[1:]]
    assert heights == pytest.approx([0.95, 0.2])
    assert {"1998", "b"} <= {text.get_text() for text in axes.texts}
    # The scale reaches down to the least of them.
    assert axes.get_ylim()[0] < 0.2


def codes_network(classes=10):
    network = model.LeNet(
        activation="scaled_tanh",
        pooling="subsampling",
        connections="table1",
        head="rbf",
        classes=classes,
        initialization="uniform_1998",
    )
    init = jax.jit(lambda key: model.init_params(network, key, (32, 32, 1)))
    params = init(jax.random.key(0))
    dataset = {"image_shape": [32, 32, 1], "normalization": {"scale": [0.005], "offset": [-0.1]}}
    return checkpoints.Trained("id", 1, ConfigDict(), network, params, dataset)


def test_f6_is_averaged_over_the_test_images_of_each_class(monkeypatch):
    monkeypatch.setattr(report, "BATCH", 4)
    network = codes_network()
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28, 1), np.uint8)
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 9, 9, 9], np.int32)
    means = report.mean_f6(network, images, labels)
    x = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))) * np.float32(0.005) - np.float32(0.1)
    capture = {"capture_intermediates": True, "mutable": ["intermediates"]}
    run_it = jax.jit(lambda x: network.model.apply({"params": network.params}, x, **capture))
    sums = np.asarray(run_it(jnp.asarray(x))[1]["intermediates"]["f6"]["__call__"][0]).T
    f6 = 1.7159 * np.tanh(2 * sums / 3)
    assert means.shape == (10, 12, 7)
    for digit in (0, 1, 2, 9):
        expected = f6[labels == digit].mean(axis=0).reshape(12, 7)
        np.testing.assert_allclose(means[digit], expected, atol=1e-5)


def portrait(f6):
    return run.Portrait("base", 3, np.zeros((5, 5, 1, 6)), {}, f6)


def test_what_f6_draws_stands_under_what_it_was_asked_to_draw():
    drawn = codes.BITMAPS.astype(float).copy()
    drawn[4, 0, 0] += 3.0
    drawn[7] += 0.1
    section = bitmaps.section(trained({"base": [0.01]}), [portrait(drawn)])
    (plot,) = plots_of(section).values()
    assert "Drawn best: 0; worst: 4" in plot.svg
    # 3 squared, and 84 times 0.01.
    assert {"9.0", "0.8"} <= set(re.findall(r">([\d.]+)<", plot.svg))
    # The codes of 6 and 8 differ in 12 pixels, which is 48; none are nearer.
    assert "48 to 200 apart" in text_of(section)
    assert plot.svg.count("<image") == 20


def test_a_drawing_that_is_nearer_to_another_code_is_announced():
    drawn = codes.BITMAPS.astype(float).copy()
    drawn[6] = codes.BITMAPS[8]
    section = bitmaps.section(trained({"base": [0.01]}), [portrait(drawn)])
    assert "What is drawn for 6 is nearer to 8" in text_of(section)


def test_without_codes_or_networks_there_are_no_bitmaps():
    assert bitmaps.section(trained({"base": [0.01]}), [portrait(None)]) is None
    assert bitmaps.section(trained({"base": [0.01]}), "Every trial diverged.") is None


def test_bitmaps_are_blank_where_they_are_off_and_full_where_they_are_on():
    asked = np.array([[[-1.0, 1.0]], [[1.0, -1.0]]])
    drawn = np.array([[[-1.7, 0.0]], [[1.7, 0.5]]])
    figure = figures.bitmaps(asked, drawn, ["0", "1"], title="T")
    painted = {image.get_gid(): image.get_array()[..., 3] for image in figure.axes[0].images}
    np.testing.assert_allclose(painted["picture-0-0"], [[0, 1]])
    np.testing.assert_allclose(painted["picture-1-0"], [[0, 0.5]])
    np.testing.assert_allclose(painted["picture-1-1"], [[1, 0.75]])
    assert texts(figure) == ["T", "asked for", "drawn", "0", "1"]


def test_pictures_refuse_captions_that_do_not_match():
    pixels = np.zeros((2, 4, 4, 1), np.uint8)
    with pytest.raises(ValueError, match="2 columns cannot have 1 captions"):
        figures.distorted(pixels, pixels[None], ["0"], title="T")


def test_each_original_stands_above_its_distorted_versions():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 4, 1), np.uint8)
    figure = figures.distorted(pixels[0], pixels[1:], ["a", "b"], title="T")
    assert [text for text in texts(figure) if text] == ["T", "original", "distorted", "a", "b"]
    drawn = np.stack(embedded_images(figure))[..., 0].reshape(3, 2, 4, 4)
    np.testing.assert_array_equal(drawn, 255 - pixels[..., 0])


def test_distortions_without_ranges_leave_images_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    versions = distorted.distorted_versions(images, Distortion(0.0, 0.0, 0.0, 0.0, 0.0), 2)
    np.testing.assert_array_equal(versions, np.stack([images, images]))


def test_every_version_of_every_image_is_distorted_in_its_own_way_within_the_ranges():
    images = np.zeros((2, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 200
    versions = distorted.distorted_versions(images, Distortion(2.0, 0.5, 0.0, 0.0, 0.0), 3)
    weights = versions[..., 0].reshape(6, 9, 9) / 200
    right, down = ((weights.sum(axis=axis) * np.arange(9)).sum(axis=1) - 4 for axis in (1, 2))
    assert np.abs(right).max() <= 2.02
    assert np.abs(down).max() <= 0.52
    assert len(np.unique(right.round(2))) == 6


def test_distorted_digits_are_drawn_where_training_distorted_them():
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)
    readings = {"plain": [0.01], "one": [0.01], "two": [0.01], "three": [0.01]}
    overrides = {
        name: {"augmentation": kind, "translation": pixels}
        for name, kind, pixels in (
            ("one", "distortions", 1.0),
            ("two", "distortions", 1.0),
            ("three", "distortions_1998", 3.0),
        )
    }
    section = distorted.section(trained(readings, overrides=overrides), images)
    plots = plots_of(section)
    assert list(plots) == ["distorted_0", "distorted_1"]
    assert plots["distorted_0"].caption.startswith("one; two. Translated by up to 1 pixels")
    assert "Drawn anew at every presentation" in plots["distorted_0"].caption
    assert "by up to 3 pixels" in plots["distorted_1"].caption
    # exp(0.15) = 1.16.
    assert "a factor of 1.16" in plots["distorted_1"].caption
    assert plots["distorted_1"].svg.count("<image") == 10 * 6
    assert distorted.section(trained(readings), images) is None


def test_without_images_the_distorted_digits_are_missing_with_the_reason():
    reading = trained({"base": [0.01]}, augmentation="distortions")
    assert "not drawn.** They are gone." in text_of(distorted.section(reading, "They are gone."))


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_whole_report_of_the_papers_network_that_diverged(tmp_path, seeds):
    trials = [("base", seed, None) for seed in range(seeds)]
    workdir = finished_run(tmp_path, trials, head="rbf", loss="rbf_map", rbf_j=10.0)
    for text in written(workdir):
        assert f"Every trial diverged ({seeds} of {seeds})" in text.replace("**", "")
        assert "0.95 %" not in text
    assert not (workdir / "figures" / "paper_passes.svg").exists()


def test_a_diverged_run_that_left_no_epochs_still_has_its_report(tmp_path):
    workdir = finished_run(tmp_path, [("base", 0, None), ("base", 1, None)], head="rbf")
    (workdir / "metrics.jsonl").write_text("")
    for text in written(workdir):
        assert "Every trial diverged" in text


@pytest.mark.parametrize("others", [None, (3, 4)])
def test_variants_of_which_every_trial_diverged_are_counted_in_the_report_of_a_sweep(
    tmp_path, others
):
    cells = {
        ("rbf_mse", "table1"): (None, None),
        ("rbf_map", "table1"): (None, None),
        ("rbf_mse", "full"): (None, None),
        ("rbf_map", "full"): (others, others),
    }
    workdir = sweep_run(tmp_path, cells, ("loss", "connections"), head="rbf")
    for text in written(workdir):
        assert "loss rbf_mse + table1: every trial diverged" in text
        assert text.count("every trial diverged") == (4 if others is None else 3)
        assert "no seed has a result in both" in text
        assert "difference 0.00 points" not in text


def test_the_report_of_the_papers_network_has_its_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "load_trained", lambda workdir, trial: codes_network(3))
    trials = [("base", seed, mistaken(3, 4 + seed)) for seed in range(2)]
    ranges = {"translation": 2.0, "scaling": 0.1, "squeezing": 0.1, "shear": 0.2}
    workdir = finished_run(tmp_path, trials, head="rbf", augmentation="distortions", **ranges)
    edit(workdir / "summary.json", models={"base": summarized(classes=3)})
    text, _ = written(workdir)
    for heading in ("The paper says, we get", "Distorted digits", "What f6 draws"):
        assert f"## {heading}" in text
    names = {path.stem for path in (workdir / "figures").iterdir()}
    assert {"paper_passes", "distorted", "inside", "bitmaps"} <= names
