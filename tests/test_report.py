import html.parser
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax import lax
from ml_collections import ConfigDict

from lenet import checkpoints, data, model, report
from lenet.statistics import compare_pairs, compare_path, compare_variants, factor_effects
from lenet.templates import comparisons, document, paths, run, shared, sweeps

ROOT = Path(__file__).parents[1]
LABELS = np.arange(60, dtype=np.int32) % 3
VOID = {"meta", "br", "img", "hr", "input", "link"}


class Page(html.parser.HTMLParser):
    """Every element of a page, in order, and whether each was closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text += text


def mistaken(*indices):
    """Predictions that are right but for these images, which are taken for the next class."""
    predictions = LABELS.copy()
    predictions[list(indices)] = (predictions[list(indices)] + 1) % 3
    return predictions


def images_file(folder, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 6, 6, 1), np.uint8)
    path = folder / f"shapes{seed}.npz"
    if not path.exists():
        np.savez(
            path,
            train_images=pixels,
            train_labels=LABELS,
            test_images=pixels[::-1],
            test_labels=LABELS,
        )
    return path


def finished_run(folder, trials, *, class_names=("0", "1", "2"), name="shapes", **config):
    """A workdir as a run leaves it; `trials` is a list of (variant, seed, predictions or None)."""
    path = images_file(folder)
    loaded = data.load("shapes", str(path))
    described = {
        "name": name,
        "source": loaded.source,
        "sha256": loaded.sha256,
        "train_examples": 50,
        "validation_examples": 10,
        "test_examples": 60,
        "class_names": list(class_names),
        "image_shape": [32, 32, 1],
        "native_shape": [6, 6, 1],
        "normalization": {"scale": [1.0], "offset": [0.0]},
    }
    rows, lines = [], []
    for variant, seed, predictions in trials:
        lost = predictions is None
        error = None if lost else float(np.mean(predictions != LABELS))
        identity = f"{variant}-{seed}"
        rows.append(
            {
                "id": identity,
                "variant": variant,
                "overrides": {},
                "seed": seed,
                "status": "diverged" if lost else "done",
                "epochs": 2,
                "parameters": 1234,
                "train_error": None if lost else 0.0125,
                "validation_error": None if lost else 0.0375,
                "test_error": error,
                "test_loss": None if lost else 0.25,
            }
        )
        for epoch in (1, 2):
            broken = lost and epoch == 2
            numbers = {
                f"{split}_{quantity}": None if broken else 0.5 / epoch
                for split in ("train", "validation", "test")
                for quantity in ("loss", "error")
            }
            common = {"trial": identity, "variant": variant, "seed": seed, "epoch": epoch}
            lines.append({**common, "step": epoch * 5, **numbers, "diverged": broken})
    variants = []
    for variant in dict.fromkeys(variant for variant, _, _ in trials):
        errors = [row["test_error"] for row in rows if row["variant"] == variant]
        done = [error for error in errors if error is not None]
        mean = float(np.mean(done)) if done else None
        variants.append(
            {
                "name": variant,
                "n": len(done),
                "test_error_mean": mean,
                "test_error_ci95": [mean - 0.02, mean + 0.02] if len(done) > 1 else None,
                "tuned": {},
                "diverged": len(errors) - len(done),
            }
        )
    layer = {
        "name": "c1",
        "output_shape": [2, 2, 6],
        "receptive_field": 5,
        "parameters": 1234,
        "multiply_adds": 4800,
    }
    model = {"layers": [layer], "parameters": 1234, "multiply_adds": 4800}
    summary = {
        "dataset": described,
        "environment": {"python": "3.11", "platform": "cpu"},
        "timing": {"total_seconds": 9.0, "compile_seconds": 1.0, "train_seconds": 75.0},
        "trials": rows,
        "variants": variants,
        "comparisons": [],
        "models": {row["name"]: {**model, "fully_connected_share": 0.958} for row in variants},
        "command": "python main.py --config=configs/shapes.py --config.seed=3",
    }
    fields = {
        "dataset": "shapes",
        "data_dir": str(path),
        "allow_subset": False,
        "activation": "tanh",
    }
    workdir = folder / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps({**fields, **config}))
    (workdir / "dataset.json").write_text(json.dumps(described))
    (workdir / "summary.json").write_text(json.dumps(summary))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.savez(
        workdir / "predictions.npz",
        trials=np.array([row["id"] for row in rows]),
        test_labels=LABELS,
        test_predictions=np.stack(
            [np.zeros_like(LABELS) if wanted is None else wanted for _, _, wanted in trials]
        ),
        test_probabilities=np.full((len(rows), 60), 0.75, np.float32),
    )
    return workdir


def one_run(folder, wrong=(3, 10, 4), **arguments):
    return finished_run(folder, [("tanh_max", 0, mistaken(*wrong))], **arguments)


def several_runs(folder, **arguments):
    trials = [
        ("relu max", 0, None),
        ("relu max", 1, mistaken(3)),
        ("relu max", 2, mistaken(3, 4, 5)),
        ("tanh/avg", 0, mistaken(7, 8)),
        ("tanh/avg", 1, mistaken(7, 8, 9)),
    ]
    return finished_run(folder, trials, **arguments)


# Of each cell and seed which images are misclassified; None diverged.
SWEPT = {
    ("tanh", "max"): ((3,), (3, 4), (3, 4)),
    ("tanh", "average"): ((3, 7, 8), (3, 7, 8, 9), None),
    ("relu", "max"): ((3,), (3, 10), (3,)),
    ("relu", "average"): ((3, 7), (3, 7, 11), (3, 7, 12, 13)),
}
TUNED = {
    "activation=tanh,pooling=max": {0.001: (0.02, 0.03), 0.01: (0.04, 0.05)},
    "activation=relu,pooling=max": {0.001: (0.03, 0.04), 0.01: (0.01, None), 0.1: (0.05, 0.06)},
}


def edit(path, **changes):
    """Changes fields of a JSON file; None takes a field out."""
    fields = {**json.loads(path.read_text()), **changes}
    kept = {name: value for name, value in fields.items() if value is not None}
    path.write_text(json.dumps(kept))
    return kept


def sweep_run(folder, cells=SWEPT, factors=("activation", "pooling"), **arguments):
    """A sweep as an experiment leaves it, with statistics, tuning and training seconds."""
    trials, overrides = [], []
    for values, seeds in cells.items():
        chosen = dict(zip(factors, values, strict=True))
        variant = ",".join(f"{field}={value}" for field, value in chosen.items())
        for seed, wrong in enumerate(seeds):
            trials.append((variant, seed, None if wrong is None else mistaken(*wrong)))
            overrides.append({**chosen, "seed": seed})
    workdir = finished_run(folder, trials, **arguments)
    path = workdir / "summary.json"
    rows = json.loads(path.read_text())["trials"]
    rows = [{**row, "overrides": each} for row, each in zip(rows, overrides, strict=True)]
    errors = {row["variant"]: {} for row in rows}
    for row in rows:
        if row["test_error"] is not None:
            errors[row["variant"]][row["seed"]] = row["test_error"]
    edit(
        path,
        trials=rows,
        comparisons=compare_variants(errors),
        effects=factor_effects(
            [(row["overrides"], row["seed"], row["test_error"]) for row in rows]
        ),
        tuning=[
            {
                "variant": variant,
                "overrides": {"learning_rate": rate},
                "seeds": [0, 1],
                "validation_errors": seeds,
                "validation_error_mean": None if None in seeds else float(np.mean(seeds)),
                "diverged": seeds.count(None),
                "chosen": rate == 0.001,
            }
            for variant, rates in TUNED.items()
            for rate, seeds in rates.items()
        ],
    )
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    lines = [{**line, "train_seconds": 10.0 * line["epoch"], "stage": "final"} for line in lines]
    lines.append({**lines[0], "trial": "tune/other", "stage": "tune"})
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return workdir


def written(workdir):
    """The Markdown, and the text of the page with its white space as a reader sees it."""
    report.write(str(workdir))
    page = Page((workdir / "report.html").read_text())
    return (workdir / "report.md").read_text(), " ".join(page.text.split())


def drawn_texts(path):
    root = ElementTree.parse(path).getroot()
    return ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_one_run_states_its_errors_in_words_and_percent(tmp_path):
    for text in written(one_run(tmp_path)):
        assert "LeNet on shapes: 5.00 % test error" in text
        assert "3 of the 60 test images are misclassified" in text
        assert "1.25 %" in text
        assert "3.75 %" in text
        assert "n = 1" in text
        assert "50 training, 10 validation and 60 test images" in text


def test_interval_of_one_run_is_the_one_of_wilsons_formula(tmp_path):
    share, images, z = 82 / 10_000, 10_000, 1.959964
    middle = share + z**2 / (2 * images)
    half = z * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    expected = (middle + np.array([-half, half])) / (1 + z**2 / images)
    np.testing.assert_allclose(run.wilson_interval(82, 10_000), expected, rtol=1e-5)
    for text in written(one_run(tmp_path)):
        assert "95 % interval of the test error: 1.71 % to 13.70 % (Wilson's" in text


def test_confusion_counts_of_a_case_counted_by_hand():
    counts = shared.confusion_counts(
        np.array([0, 0, 0, 1, 2, 2], np.int32), np.array([0, 2, 2, 1, 2, 0], np.int32), 3
    )
    np.testing.assert_array_equal(counts, [[1, 0, 2], [0, 1, 0], [1, 0, 1]])


def test_every_misclassified_image_is_drawn_ordered_by_label(tmp_path):
    workdir = one_run(tmp_path)
    page = written(workdir)[1]
    grid = workdir / "figures" / "misclassified.svg"
    assert grid.read_text().count("<image") == 3
    assert drawn_texts(grid)[1:] == ["0→1 75 %", "1→2 75 %", "1→2 75 %"]
    assert "3 of 60 test images are misclassified" in page
    assert "Every misclassified test image." in page


def test_only_the_most_confident_mistakes_are_drawn_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(shared, "MAX_DRAWN_MISTAKES", 3)
    monkeypatch.setattr(shared, "MIN_DRAWN_MISTAKES", 2)
    labels = np.array([2, 1, 0, 1, 0], np.int32)
    predictions = np.array([1, 1, 1, 0, 2], np.int32)
    probabilities = np.array([0.9, 1.0, 0.4, 0.8, 0.6], np.float32)
    drawn = shared.drawn_mistakes(labels, predictions, probabilities)
    assert drawn.tolist() == [4, 3, 0]
    # Of two variants each has half of them, and of many at least MIN_DRAWN_MISTAKES.
    assert shared.drawn_mistakes(labels, predictions, probabilities, variants=2).tolist() == [3, 0]
    assert shared.drawn_mistakes(labels, predictions, probabilities, variants=9).tolist() == [3, 0]


def test_undrawn_mistakes_are_admitted(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "MAX_DRAWN_MISTAKES", 2)
    monkeypatch.setattr(shared, "MIN_DRAWN_MISTAKES", 1)
    workdir = one_run(tmp_path)
    for text in written(workdir):
        assert "The 2 mistakes of 3 that the network was most confident of" in text
    assert (workdir / "figures" / "misclassified.svg").read_text().count("<image") == 2


def test_a_run_without_mistakes_says_so(tmp_path):
    workdir = one_run(tmp_path, wrong=())
    for text in written(workdir):
        assert "LeNet on shapes: 0.00 % test error" in text
        assert "No test image is misclassified." in text
    assert not (workdir / "figures" / "misclassified.svg").exists()


@pytest.mark.parametrize("make", [one_run, several_runs, sweep_run])
def test_page_is_one_file_that_needs_nothing_else(tmp_path, make):
    workdir = make(tmp_path)
    report.write(str(workdir))
    source = (workdir / "report.html").read_text()
    page = Page(source)
    assert not page.open
    tags = {tag for tag, _ in page.elements}
    assert "svg" in tags
    assert not tags & {"script", "link", "iframe", "img", "object", "embed"}
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name.split(":")[-1] in ("href", "src"):
                assert value.startswith(("#", "data:image/png;base64,"))
    assert "@import" not in source
    assert not re.search(r"url\((?!#)", source)
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    for reference in re.findall(r'(?:url\(|href=")#([^")]+)', source):
        assert reference in identities


@pytest.mark.parametrize("make", [one_run, several_runs, sweep_run])
def test_markdown_shows_every_figure_and_no_other(tmp_path, make):
    workdir = make(tmp_path)
    text, _ = written(workdir)
    shown = re.findall(r"!\[[^\]]+\]\((figures/[\w.-]+\.svg)\)", text)
    files = [f"figures/{path.name}" for path in (workdir / "figures").iterdir()]
    assert sorted(shown) == sorted(files)


def test_writing_twice_gives_identical_bytes_and_leaves_nothing_else(tmp_path):
    workdir = several_runs(tmp_path)
    contents = []
    for _ in range(2):
        report.write(str(workdir))
        contents.append({path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()})
    assert contents[0] == contents[1]
    assert {path.name for path in workdir.iterdir()} == {
        *report.FILES,
        "report.md",
        "report.html",
        "figures",
    }


def test_several_trials_show_means_intervals_and_what_diverged(tmp_path):
    workdir = several_runs(tmp_path)
    for text in written(workdir):
        assert "LeNet on shapes: 2 variants, 5 trials" in text
        assert "mean test error 3.33 % (95 % interval 1.33 % to 5.33 %, n = 2 seeds)" in text
        assert "1 more seed diverged" in text
        assert "relu max with seed 0 (in epoch 2)" in text
        assert "Wilson" not in text
        assert "What relu max gets wrong, with seed 1" in text
        assert "What tanh/avg gets wrong, with seed 0" in text
    assert "| relu max | 0 | diverged | 2 | - | - | - | - |" in (workdir / "report.md").read_text()
    assert "1 diverged" in drawn_texts(workdir / "figures" / "test_error.svg")
    assert {path.name for path in (workdir / "figures").glob("mis*")} == {
        "misclassified_relu_max.svg",
        "misclassified_tanh_avg.svg",
        "mistakes_only_relu_max.svg",
        "mistakes_only_tanh_avg.svg",
    }


def test_seeds_of_one_variant_are_reported_by_their_mean(tmp_path):
    trials = [("tanh_max", seed, mistaken(*range(seed + 1))) for seed in range(3)]
    for text in written(finished_run(tmp_path, trials)):
        assert "LeNet on shapes: 3.33 % mean test error over 3 seeds" in text


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_in_which_everything_diverged_is_still_drawn(tmp_path, count):
    workdir = finished_run(tmp_path, [("tanh_max", seed, None) for seed in range(count)])
    for text in written(workdir):
        assert "diverged" in text
        assert "0.00 %" not in text
    assert not list((workdir / "figures").glob("confusion*"))


def test_a_subset_is_announced_in_title_and_text(tmp_path):
    for text in written(one_run(tmp_path, name="mnist_5k")):
        assert "LeNet on the subset mnist_5k" in text
        assert "Not MNIST, but a subset of it" in text


def test_training_on_a_part_of_the_data_is_announced(tmp_path):
    for text in written(one_run(tmp_path, train_examples=20)):
        assert "the first 20 training images" in text


def test_images_that_are_gone_are_missing_from_the_report_with_the_reason(tmp_path):
    workdir = one_run(tmp_path)
    images_file(tmp_path).unlink()
    for text in written(workdir):
        assert "The misclassified images are not drawn" in text
        assert "shapes0.npz does not exist" in text
    assert (workdir / "figures" / "confusion.svg").exists()


def test_images_of_another_data_set_are_not_drawn(tmp_path):
    workdir = one_run(tmp_path, data_dir=str(images_file(tmp_path, seed=1)))
    for text in written(workdir):
        assert "is not what the run used" in text


def test_text_from_outside_cannot_become_markup(tmp_path):
    workdir = one_run(tmp_path, class_names=("<b>x</b>", "a&b", '"c"'), note="</pre><script>")
    report.write(str(workdir))
    page = Page((workdir / "report.html").read_text())
    assert not page.open
    bold = sum(tag == "b" for tag, _ in page.elements)
    assert bold == len(re.findall(r"^- \*\*", (workdir / "report.md").read_text(), re.MULTILINE))
    assert "script" not in {tag for tag, _ in page.elements}
    assert "<b>x</b>" in page.text
    assert "</pre><script>" in page.text


def test_model_command_and_config_are_in_the_report(tmp_path):
    for text in written(one_run(tmp_path)):
        assert "2x2x6" in text
        assert "4,800" in text
        assert "95.8 % of the parameters belong to fully connected layers" in text
        assert "python main.py --config=configs/shapes.py --config.seed=3" in text
        assert '"activation": "tanh"' in text


def test_of_an_epoch_that_was_trained_twice_the_later_line_counts(tmp_path):
    workdir = one_run(tmp_path)
    path = workdir / "metrics.jsonl"
    line = json.loads(path.read_text().splitlines()[0])
    with path.open("a") as file:
        file.write(json.dumps({**line, "test_error": 0.125}) + "\n")
    values = report.read(str(workdir)).values("tanh_max-0", "test_error")
    np.testing.assert_array_equal(values, [0.125, 0.25])


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ((1, 0.0084, None, 0), "a: test error 0.84 % (84 of 10,000 images, one seed)"),
        (
            (10, 0.01, [0.009, 0.011], 2),
            "a: mean test error 1.00 % (95 % interval 0.90 % to 1.10 %, n = 10 seeds); "
            "2 more seeds diverged",
        ),
        ((0, None, None, 3), "a: diverged, 3 of 3 trials"),
    ],
)
def test_a_variant_is_summed_up_in_a_sentence(variant, expected):
    names = ("n", "test_error_mean", "test_error_ci95", "diverged")
    fields = dict(zip(names, variant, strict=True))
    summary = {"dataset": {"test_examples": 10_000}}
    assert run.sentence(summary, {"name": "a", "tuned": {}, **fields}) == expected


def test_a_tuned_value_without_a_choice_is_said_to_be_given():
    tuning = [
        {"variant": "a", "overrides": {"learning_rate": rate, "momentum": 0.9}}
        for rate in (0.1, 0.2)
    ]
    summary = {"dataset": {"test_examples": 100}, "tuning": tuning}
    variant = {"n": 1, "test_error_mean": 0.5, "test_error_ci95": None, "diverged": 0}
    ended = []
    for name in ("a", "b"):
        tuned = {"learning_rate": 0.1, "momentum": 0.9}
        sentence = run.sentence(summary, {**variant, "name": name, "tuned": tuned}, "shown")
        ended.append(sentence.removeprefix("shown: test error 50.00 % (50 of 100 images, one "))
    assert ended == [
        "seed); tuned: learning rate 0.1, momentum 0.9 (given)",
        "seed); tuned: learning rate 0.1 (given), momentum 0.9 (given)",
    ]


@pytest.mark.parametrize("name", report.FILES)
def test_a_missing_file_is_named(tmp_path, name):
    workdir = one_run(tmp_path)
    (workdir / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {re.escape(name)}"):
        report.write(str(workdir))


@pytest.mark.parametrize("name", report.FILES)
def test_a_broken_file_is_named_and_nothing_is_written(tmp_path, name):
    workdir = one_run(tmp_path)
    (workdir / name).write_bytes((workdir / name).read_bytes()[:20])
    with pytest.raises(ValueError, match=f"{re.escape(name)} is broken") as caught:
        report.write(str(workdir))
    assert "\n" not in str(caught.value)
    assert not (workdir / "report.html").exists()


def test_command_line_draws_the_report_again(tmp_path):
    workdir = one_run(tmp_path)
    command = [sys.executable, "-m", "lenet.report", f"--workdir={workdir}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(workdir / "report.html")]
    by_command = (workdir / "report.html").read_bytes()
    report.write(str(workdir))
    assert (workdir / "report.html").read_bytes() == by_command


def test_command_line_says_in_one_line_what_is_wrong(tmp_path, monkeypatch):
    workdir = str(tmp_path / "none")
    monkeypatch.setattr(report.flags, "FLAGS", SimpleNamespace(workdir=workdir))
    with pytest.raises(SystemExit) as stopped:
        report.main(["report"])
    assert stopped.value.code == f"workdir {workdir} does not exist; name the folder of a run"


def test_every_block_has_both_renderings():
    plot = document.Plot("p", '<svg viewBox="0 0 1 1"></svg>', 1.0, "alternative", "caption")
    blocks = (
        document.Text("**bold** and `code` at 5 %"),
        document.Bullets(("first <1>", "n = 3")),
        document.Notice("mind"),
        document.Facts((("1", "one"),)),
        document.Table(("a", "b"), (("x|y", "1.5"),)),
        document.Code("run <it>", "sh"),
        document.Row((plot,)),
        document.Details("more", (plot,)),
    )
    drawn = (document.Section("title", blocks),)
    page = document.to_html("T", drawn)
    assert not Page(page).open
    assert "<strong>bold</strong> and <code>code</code> at 5&nbsp;%" in page
    assert '<td class="number">1.5</td>' in page
    assert "<ul><li>first &lt;1&gt;</li><li>n&nbsp;=&nbsp;3</li></ul>" in page
    assert "run &lt;it&gt;" in page
    text = document.to_markdown("T", drawn)
    assert "| a | b |\n| --- | ---: |\n| x\\|y | 1.5 |" in text
    assert "- first &lt;1>\n- n = 3" in text
    assert text.count("![alternative](figures/p.svg)") == 2


def comparison(difference, ci95, corrected, n=10, p_value=0.01, dropped=0):
    fields = {"difference": difference, "ci95": ci95, "p_value": p_value, "p_value_holm": corrected}
    return {**fields, "n": n, "method": "paired t over seeds", "dropped": dropped}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            comparison(0.0003, [-0.0005, 0.0011], 0.5, p_value=0.5),
            "**tanh** and **relu** cannot be told apart with n = 10: difference 0.03 points, "
            "interval -0.05 to 0.11.",
        ),
        (
            comparison(-0.0003, [-0.0011, 0.0005], 0.5, p_value=0.5),
            "**relu** and **tanh** cannot be told apart with n = 10: difference 0.03 points, "
            "interval -0.05 to 0.11.",
        ),
        (
            comparison(0.0012, [0.0005, 0.0019], 0.003),
            "**relu** beats **tanh** by 0.12 points (0.05 to 0.19, Holm p = 0.003, n = 10).",
        ),
        (
            comparison(-0.0012, [-0.0019, -0.0005], 0.0002, n=9, dropped=1),
            "**tanh** beats **relu** by 0.12 points (0.05 to 0.19, Holm p < 0.001, n = 9; "
            "1 seed without a result on both sides left out).",
        ),
        (
            comparison(0.0012, [0.0001, 0.0023], 0.08),
            "**tanh** and **relu** cannot be told apart with n = 10: difference 0.12 points, "
            "interval 0.01 to 0.23, which leaves out 0, but not after the correction for all "
            "tests (Holm p = 0.08).",
        ),
        (
            comparison(0.0012, None, None, n=1, p_value=None),
            "**tanh** and **relu** cannot be told apart with n = 1: difference 0.12 points, with "
            "no interval.",
        ),
        (
            comparison(0.0012, None, None, n=3, p_value=None),
            "**tanh** and **relu** cannot be told apart with n = 3: difference 0.12 points with "
            "every seed, and what does not vary cannot be tested.",
        ),
        (
            comparison(None, None, None, n=0, p_value=None),
            "**tanh** and **relu** cannot be compared: no seed has a result in both.",
        ),
    ],
)
def test_a_comparison_is_put_into_words(found, expected):
    named = {"a": "A", "b": "B", **found}
    names = {"A": "tanh", "B": "relu"}
    assert comparisons.comparison_sentence(named, names.__getitem__) == expected


@pytest.mark.parametrize(
    ("kind", "found", "expected"),
    [
        (
            "main",
            comparison(0.0012, [0.0005, 0.0019], 0.003),
            "**tanh** beats **relu** by 0.12 points (0.05 to 0.19, Holm p = 0.003, n = 10).",
        ),
        (
            "interaction",
            comparison(-0.0005, [-0.0009, -0.0001], 0.02),
            "The change in test error from tanh to relu is 0.05 points lower with average pooling "
            "than with max pooling (0.01 to 0.09, Holm p = 0.02, n = 10).",
        ),
        (
            "interaction",
            comparison(0.0005, [-0.0001, 0.0011], 0.2),
            "Whether the step from tanh to relu depends on pooling (max pooling or average "
            "pooling) cannot be told with n = 10: the difference of the differences is 0.05 "
            "points, interval -0.01 to 0.11.",
        ),
    ],
)
def test_an_effect_is_put_into_words(kind, found, expected):
    count = 1 if kind == "main" else 2
    described = {
        "kind": kind,
        "factors": ["activation", "pooling"][:count],
        "levels": ["relu", "average"][:count],
        "reference": ["tanh", "max"][:count],
    }
    assert comparisons.effect_sentence({**described, **found}) == expected


def test_a_sweep_says_what_its_comparisons_and_effects_support(tmp_path):
    workdir = sweep_run(tmp_path)
    for text in written(workdir):
        assert "What the data support" in text
        assert "What each factor does" in text
        assert "of 6 pairs of variants can be told apart" in text
        assert "1 seed without a result in every combination is left out here" in text
        # Three pairs differ by the same with every seed, which makes no test.
        assert "P-values are corrected by Holm's method for 3 tests made here" in text
    # Errors of tanh minus relu with max pooling: 0, 0 and 1 of 60 images.
    row = "| tanh + max | relu + max | 0.56 | -1.83 to 2.95 | 0.42 | 0.42 | 3 | 0 |"
    assert row in (workdir / "report.md").read_text()
    names = {path.stem for path in (workdir / "figures").iterdir()}
    assert {"comparisons", "effects", "grid_activation_pooling", "rate_sensitivity"} <= names


def test_of_many_pairs_only_those_with_the_best_variant_are_spoken_of(tmp_path):
    cells = {
        (activation, pooling): tuple((*range(20 + 3 * index), 50 + seed) for seed in range(3))
        for index, (activation, pooling) in enumerate(
            (activation, pooling)
            for activation in ("tanh", "relu")
            for pooling in ("max", "average", "stride")
        )
    }
    workdir = sweep_run(tmp_path, cells)
    text, _ = written(workdir)
    assert "**tanh + max** has the lowest mean. It beats 0 of the 5 others" in text
    assert "Of all 15 pairs of variants, 0 can be told apart." in text
    # Each cell has three mistakes more than the one before, with every seed.
    assert "**relu + max** and **tanh + max** cannot be told apart with n = 3: difference" in text
    assert "**relu + max** and **relu + average**" not in text
    labels = drawn_texts(workdir / "figures" / "comparisons.svg")
    assert "test error minus that of tanh + max (points)" in labels


@pytest.mark.parametrize("absent", ["comparisons", "effects", "tuning"])
def test_a_summary_without_statistics_still_makes_a_report(tmp_path, absent):
    workdir = sweep_run(tmp_path)
    edit(workdir / "summary.json", **{absent: None})
    (text, _) = written(workdir)
    headings = {
        "comparisons": "## What the data support",
        "effects": "## What each factor does",
        "tuning": "## Choosing the learning rate",
    }
    assert {field for field, heading in headings.items() if heading not in text} == {absent}


def test_names_of_variants_are_shortened_unless_two_become_the_same():
    def labels(*names):
        summary = {"variants": [{"name": name} for name in names]}
        none = np.zeros((0, 0), np.int32)
        empty = run.Run({}, {}, summary, {}, (), none.ravel(), none, none.astype(np.float32))
        return list(empty.labels.values())

    assert labels("activation=scaled_tanh,pooling=max") == ["scaled_tanh + max"]
    assert labels("paper,learning_rate=0.01,widths=(6, 16, 120, 84)") == [
        "paper + learning rate 0.01 + widths (6, 16, 120, 84)"
    ]
    assert labels("relu max") == ["relu max"]
    assert labels("activation=max", "pooling=max") == ["activation=max", "pooling=max"]


def test_each_cell_of_the_grid_is_the_mean_over_its_seeds(tmp_path):
    workdir = sweep_run(tmp_path)
    report.write(str(workdir))
    drawn = drawn_texts(workdir / "figures" / "grid_activation_pooling.svg")
    # 5, 7, 4 and 9 mistakes in 3, 2, 3 and 3 times 60 images.
    assert [text for text in drawn if re.fullmatch(r"\d\.\d\d", text)] == [
        "2.78",
        "5.83",
        "2.22",
        "5.00",
    ]
    assert drawn[-1] == "Lowest: relu with max pooling, 2.22 %"


def test_a_grid_is_drawn_only_of_cells_that_differ_in_their_two_factors_alone(tmp_path):
    cells = dict(SWEPT)
    cells["relu", "average", 3] = cells.pop(("relu", "average"))
    path = {(*cell, 0)[:3]: seeds for cell, seeds in cells.items()}
    workdir = sweep_run(tmp_path, path, ("activation", "pooling", "batch_size"))
    report.write(str(workdir))
    assert not list((workdir / "figures").glob("grid_*"))


def test_a_grid_over_more_factors_averages_the_rest_seed_by_seed(tmp_path):
    cells = {
        (activation, pooling, head): ((*range(2 + index),), (*range(4 + index),))
        for index, (activation, pooling, head) in enumerate(
            (activation, pooling, head)
            for activation in ("tanh", "relu")
            for pooling in ("max", "average")
            for head in ("dense", "gap")
        )
    }
    workdir = sweep_run(tmp_path, cells, ("activation", "pooling", "head"))
    loaded = report.read(str(workdir))
    cell = sweeps._cell(loaded, {"activation": "tanh", "pooling": "average"})
    # Heads dense and gap make 4 and 5 mistakes with seed 0, and two more with seed 1.
    assert cell.mean == pytest.approx((4.5 + 6.5) / 2 / 60)
    assert cell.interval[1] - cell.mean == pytest.approx(12.7062 / 60, rel=1e-4)
    report.write(str(workdir))
    assert len(list((workdir / "figures").glob("grid_*"))) == 3


def test_a_swept_number_is_drawn_against_the_error(tmp_path):
    cells = {(size,): ((*range(3 - index),), (3,)) for index, size in enumerate((15, 30, 60))}
    workdir = sweep_run(tmp_path, cells, ("batch_size",))
    for text in written(workdir):
        assert "Test error against batch size" in text
        assert "Activation x pooling" not in text
        assert "What each factor does" not in text
    drawn = drawn_texts(workdir / "figures" / "trend_batch_size.svg")
    assert "Lowest: batch size 60, 1.67 %" in drawn


def test_every_tuned_value_is_shown_with_the_one_that_was_chosen(tmp_path):
    workdir = sweep_run(tmp_path)
    for text in written(workdir):
        assert "Choosing the learning rate" in text
        assert "At the edge of what was tried: tanh + max" in text.replace("**", "")
    markdown = (workdir / "report.md").read_text()
    assert "| tanh + max | 0.001 | 2.50 % | 2 | 0 | chosen |" in markdown
    assert "| relu + max | 0.01 | - | 2 | 1 |  |" in markdown
    drawn = drawn_texts(workdir / "figures" / "rate_sensitivity.svg")
    assert "1 diverged" in drawn
    assert "Every variant does best with learning rate 0.001" in drawn


def test_the_tuning_stage_has_no_part_in_curves_and_times(tmp_path):
    loaded = report.read(str(sweep_run(tmp_path)))
    assert set(loaded.metrics) == {trial["id"] for trial in loaded.summary["trials"]}
    assert "seed" not in loaded.factors
    assert "learning_rate" not in loaded.factors


def test_epochs_and_seconds_to_reach_an_error(tmp_path):
    workdir = sweep_run(tmp_path)
    path = workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    curves = {("activation=relu,pooling=max", 0): (0.04, 0.009)}
    for line in lines:
        seen = curves.get((line["variant"], line["seed"]), (0.04, 0.014))
        line["test_error"] = None if line["test_error"] is None else seen[line["epoch"] - 1]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (text, _) = written(workdir)
    assert "| variant | error 2.0 % | error 1.5 % | error 1.2 % | error 1.0 % |" in text
    cells = ["2.0 (20.0 s)"] * 2
    assert f"| tanh + max | {' | '.join(cells)} | never | never |" in text
    some = "2.0 (20.0 s), 1 of 3"
    assert f"| relu + max | {' | '.join(cells)} | {some} | {some} |" in text
    assert (workdir / "figures" / "error_against_time.svg").exists()
    # All take 20 s, so that none is done first.
    assert "done first" not in text
    assert " ends lowest." in text


def test_mistakes_are_sorted_into_common_and_unique_ones(tmp_path):
    workdir = sweep_run(tmp_path)
    for text in written(workdir):
        text = text.replace("**", "")
        assert "1 image of 60 is wrong for all 4 variants; 4 images for at least one" in text
    markdown = (workdir / "report.md").read_text()
    assert "| tanh + max | 2 | 1 | 1 |" in markdown
    assert "| tanh + average | 3 | 1 | 1 |" in markdown
    assert "| relu + max | 1 | 1 | 0 |" in markdown
    assert "| relu + average | 2 | 1 | 0 |" in markdown
    # Image 3 has label 0, image 8 label 2; 11 trials finished.
    shown = drawn_texts(workdir / "figures" / "mistakes_all.svg")
    assert shown == ["1 image wrong for every variant", "0→1 11/11"]
    only = workdir / "figures" / "mistakes_only_activation_tanh_pooling_average.svg"
    assert drawn_texts(only) == ["1 image wrong for tanh + average only", "2→0 2/2"]
    assert len(list((workdir / "figures").glob("mistakes_only*"))) == 2


def path_run(errors, seconds=(), overrides=None):
    """A run with a path over the variants and a reference, the first of them."""
    names = list(errors)
    known = {
        name: {seed: error for seed, error in enumerate(each) if error is not None}
        for name, each in errors.items()
    }
    variants = [
        {
            "name": name,
            "n": len(known[name]),
            "test_error_mean": float(np.mean(list(known[name].values()))),
            "test_error_ci95": None,
            "diverged": len(each) - len(known[name]),
            "train_seconds": taken,
        }
        for (name, each), taken in zip(errors.items(), seconds or [1.0] * len(errors), strict=True)
    ]
    summary = {
        "variants": variants,
        "trials": [
            {
                "id": name,
                "variant": name,
                "overrides": (overrides or {}).get(name, {"seed": 0}),
                "status": "done",
                "test_error": errors[name][0],
            }
            for name in names
        ],
        "path": compare_path(known, names),
        "references": {names[0]: compare_pairs(known, [(name, names[0]) for name in names[1:]])},
    }
    nothing = np.zeros((0, 0), np.int32)
    config = {"activation": "tanh", "path": names}
    return run.Run(config, {}, summary, {}, (), nothing.ravel(), nothing, nothing.astype(float))


# By 0.2 points lower for every seed but for rounding, then no different.
STEPS = {
    "old": (0.0120, 0.0121, 0.0119, 0.0120),
    "+ b": (0.0100, 0.0101, 0.0098, 0.0101),
    "new": (0.0099, 0.0100, 0.0099, None),
}


def test_a_path_says_what_each_step_changed_and_what_cannot_be_told(tmp_path):
    drawn = paths.path(path_run(STEPS, overrides={"new": {"activation": "relu", "seed": 0}}))
    text = document.to_markdown("T", [drawn])
    assert "## The path from old to new" in text
    assert "From old to new, 1.20 % to 0.99 %: 1 lowers the error, none raise it, 1 cannot" in text
    assert "Of the 2 steps between, 1 lowers the error, none raise it, 1 cannot be told" in text
    assert "**+ b** lowers it most, by 0.20 points." in text
    assert "Changed: relu. **+ b** and **new** cannot be told apart with n = 3: difference" in text
    assert "1 seed without a result on both sides left out" in text
    assert "**Diverged**: new with 1 of 4 seeds." in text
    (figure,) = document.plots([drawn])
    assert "new: relu (1 diverged)" in figure.svg


def test_a_reference_is_compared_with_each_change_alone():
    (drawn,) = paths.references(path_run(STEPS))
    text = document.to_markdown("T", [drawn])
    assert "## old with one change" in text
    assert "Of 2 changes, 2 lower the error, none raise it." in text
    assert "**+ b** beats **old** by 0.20 points" in text
    assert "| new | old |" in text


def test_without_a_path_or_references_there_is_no_such_section(tmp_path):
    read = report.read(str(several_runs(tmp_path)))
    assert paths.path(read) is None
    assert paths.references(read) == ()


def test_the_figure_of_time_says_what_the_lowest_error_costs():
    drawn = sweeps.time(path_run(STEPS, seconds=(10.0, 40.0, 60.0)))
    text = document.to_markdown("T", [drawn])
    assert "+ b has the lowest mean error" not in text
    assert (
        "new has the lowest mean error, 0.99 %; old is trained 6.0 times as fast and has 1.20 %"
    ) in text
    assert "| new | 0.99 % | 60.0 | yes |" in text
    close = sweeps.time(path_run(STEPS, seconds=(10.0, 40.0, 11.0)))
    text = document.to_markdown("T", [close])
    assert "new has the lowest mean error, and nothing is quicker by much" in text
    assert "| + b | 1.00 % | 40.0 |  |" in text


@pytest.mark.parametrize(
    ("name", "config", "shown"),
    [
        ("mnist", {}, True),
        ("mnist", {"train_examples": 20}, False),
        ("mnist_5k", {}, False),
        ("fashion_mnist", {}, False),
    ],
)
def test_published_errors_stand_beside_those_of_the_whole_of_mnist_only(
    tmp_path, name, config, shown
):
    workdir = several_runs(tmp_path, name=name, **config)
    report.write(str(workdir))
    drawn = drawn_texts(workdir / "figures" / "test_error.svg")
    assert ("LeNet-5, 1998: 0.95 %" in drawn) == shown


def trained_network(activation="tanh", pooling="max"):
    network = model.LeNet(activation=activation, pooling=pooling, classes=3)
    params = model.init_params(network, jax.random.key(0), (32, 32, 1))
    dataset = {"image_shape": [32, 32, 1], "normalization": {"scale": [0.01], "offset": [-0.1]}}
    return checkpoints.Trained("id", 1, ConfigDict(), network, params, dataset)


def test_feature_maps_are_those_that_the_layers_make_one_after_the_other():
    trained = trained_network("tanh", "average")
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
    maps = report.feature_maps(trained, image)
    shapes = {name: each.shape for name, each in maps.items()}
    assert shapes == {"c1": (6, 28, 28), "s2": (6, 14, 14), "c3": (16, 10, 10), "s4": (16, 5, 5)}
    x = np.pad(image[..., 0], 2)[None] * np.float32(0.01) - np.float32(0.1)
    for convolution, pooling in (("c1", "s2"), ("c3", "s4")):
        weights = trained.params[convolution]
        y = lax.conv_general_dilated(
            x[None], weights["kernel"], (1, 1), "VALID", dimension_numbers=("NCHW", "HWIO", "NCHW")
        )[0]
        y = np.tanh(np.asarray(y) + np.asarray(weights["bias"])[:, None, None])
        np.testing.assert_allclose(maps[convolution], y, atol=1e-4)
        channel, height, width = y.shape
        x = y.reshape(channel, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
        np.testing.assert_allclose(maps[pooling], x, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_feature_maps_after_the_activation_lie_in_its_range(activation):
    image = np.random.default_rng(1).integers(0, 256, (28, 28, 1), np.uint8)
    maps = report.feature_maps(trained_network(activation), image)
    low, high = {"relu": (0, np.inf), "tanh": (-1, 1), "gelu": (-0.18, np.inf)}[activation]
    for each in maps.values():
        assert low <= each.min() <= each.max() <= high


@pytest.mark.parametrize(
    ("make", "figures_drawn"),
    [
        (one_run, ["inside"]),
        (several_runs, ["inside_relu_max", "inside_tanh_avg"]),
    ],
)
def test_kernels_and_feature_maps_of_a_network_of_each_variant(
    tmp_path, monkeypatch, make, figures_drawn
):
    monkeypatch.setattr(checkpoints, "load_trained", lambda workdir, trial: trained_network())
    workdir = make(tmp_path)
    text, _ = written(workdir)
    drawn = sorted((workdir / "figures").glob("inside*"))
    assert [path.stem for path in drawn] == figures_drawn
    for path in drawn:
        assert {"kernels", "c1", "s2", "c3", "s4"} <= set(drawn_texts(path))
        assert path.read_text().count("<image") == 6 + 6 + 6 + 16 + 16
    assert "what each layer makes of the first test image (its label: 0)" in text


def test_kernels_are_drawn_without_the_images_too(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "load_trained", lambda workdir, trial: trained_network())
    workdir = one_run(tmp_path)
    images_file(tmp_path).unlink()
    text, _ = written(workdir)
    assert (workdir / "figures" / "inside.svg").read_text().count("<image") == 6
    assert "first test image" not in text


def test_without_checkpoints_the_report_says_why_there_are_no_kernels(tmp_path):
    for text in written(one_run(tmp_path)):
        assert "Kernels and feature maps are not drawn" in text
        assert "has no checkpoint yet" in text


def test_trials_that_are_no_better_than_a_constant_answer_are_named(tmp_path):
    most = np.bincount(LABELS).max()
    wrong = len(LABELS) - most
    cells = {("tanh",): (range(3), range(wrong)), ("relu",): (range(2), range(3))}
    for text in written(sweep_run(tmp_path, cells, ("activation",))):
        assert "1 trial learned nothing" in text
        assert "tanh (1 of 2)" in text
        assert "relu (" not in text


def test_where_the_training_size_is_swept_the_report_names_every_size(tmp_path):
    cells = {(size,): (range(3), range(2)) for size in (15, 30, 0)}
    text, _ = written(sweep_run(tmp_path, cells, ("train_examples",)))
    assert "15 or 30 or all training, " in text
