import html.parser
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lenet import data, report
from lenet.templates import document, run, shared

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
    labels = np.array([2, 1, 0, 1, 0], np.int32)
    predictions = np.array([1, 1, 1, 0, 2], np.int32)
    probabilities = np.array([0.9, 1.0, 0.4, 0.8, 0.6], np.float32)
    drawn = shared.drawn_mistakes(labels, predictions, probabilities)
    assert drawn.tolist() == [4, 3, 0]


def test_undrawn_mistakes_are_admitted(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "MAX_DRAWN_MISTAKES", 2)
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


@pytest.mark.parametrize("make", [one_run, several_runs])
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


@pytest.mark.parametrize("make", [one_run, several_runs])
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
    assert "run &lt;it&gt;" in page
    text = document.to_markdown("T", drawn)
    assert "| a | b |\n| --- | ---: |\n| x\\|y | 1.5 |" in text
    assert text.count("![alternative](figures/p.svg)") == 2
