"""The command line as a user meets it: whole processes, on 5,000 real digits."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lenet import checkpoints

ROOT = pathlib.Path(__file__).parent.parent
SMALL = (
    "--config.dataset=mnist_5k",
    "--config.batch_size=32",
    "--config.learning_rate=0.002",
    "--config.validation_examples=500",
)


@pytest.fixture(scope="module")
def environment(cache_dir, digits):
    return {**os.environ, "LENET_CACHE_DIR": str(cache_dir), "COLUMNS": "200"}


def start(environment, *flags, module=None):
    what = ["-m", module] if module else [str(ROOT / "main.py")]
    return subprocess.Popen(
        [sys.executable, *what, *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def run(environment, *flags, module=None):
    return finish(start(environment, *flags, module=module))


def read(workdir, name):
    return json.loads((workdir / name).read_text())


def lines(workdir):
    path = workdir / "metrics.jsonl"
    texts = path.read_text().splitlines() if path.exists() else []
    return [json.loads(text) for text in texts if text.endswith("}")]


def wait_for_epochs(workdir, process, epochs):
    deadline = time.monotonic() + 100
    while len(lines(workdir)) < epochs:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def without_times(value):
    """A summary or metrics without what depends on the clock, the workdir or the command."""
    if isinstance(value, dict):
        return {
            key: without_times(item)
            for key, item in value.items()
            if key not in ("timing", "train_seconds", "command")
        }
    return [without_times(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def whole(environment, tmp_path_factory):
    """A run of ten epochs from start to finish: its workdir and what it printed."""
    workdir = tmp_path_factory.mktemp("whole")
    code, output = run(
        environment,
        "--config=configs/relu_max.py",
        f"--workdir={workdir}",
        *SMALL,
    )
    assert code == 0, output
    return workdir, output


def test_a_run_learns_and_writes_everything(whole):
    workdir, output = whole
    summary = read(workdir, "summary.json")
    (trial,) = summary["trials"]
    assert trial["status"] == "done"
    assert trial["parameters"] == 61_706
    # 1,000 test images: well under the 12 % of a linear classifier (LeCun et al. 1998).
    assert trial["test_error"] < 0.06
    assert summary["dataset"]["name"] == "mnist_5k"
    assert [summary["dataset"][f"{part}_examples"] for part in ("train", "validation", "test")] == [
        3500,
        500,
        1000,
    ]
    assert [line["epoch"] for line in lines(workdir)] == list(range(1, 11))
    assert lines(workdir)[-1]["train_loss"] < 0.2 * lines(workdir)[0]["train_loss"]
    assert lines(workdir)[-1]["test_error"] == trial["test_error"]
    assert lines(workdir)[-1]["validation_error"] == trial["validation_error"]
    for name in ("config.json", "dataset.json", "report.md", "report.html", "predictions.npz"):
        assert (workdir / name).stat().st_size > 0
    assert list((workdir / "tensorboard").rglob("events.out.tfevents.*"))
    assert len(list((workdir / "figures").glob("*.svg"))) >= 4
    timing = summary["timing"]
    before = [timing[f"{part}_seconds"] for part in ("import", "data", "compile")]
    assert min(before) > 0
    assert sum(before) < timing["first_step_seconds"] < timing["total_seconds"]
    assert "mnist_5k" in output
    assert re.search(r"epoch 10/10, train error [\d.]+ %, validation error [\d.]+ %", output)
    assert "95.8 % of the parameters are in fully connected layers" in output


def test_the_predictions_are_those_of_the_summary(whole):
    workdir, _ = whole
    with np.load(workdir / "predictions.npz", allow_pickle=False) as file:
        wrong = (file["test_predictions"][0] != file["test_labels"]).mean()
    assert wrong == read(workdir, "summary.json")["trials"][0]["test_error"]


def test_killed_and_stopped_the_run_ends_with_the_same_bits(whole, environment, tmp_path):
    expected, _ = whole
    workdir = tmp_path / "run"
    command = ("--config=configs/relu_max.py", f"--workdir={workdir}", *SMALL)

    process = start(environment, *command)
    wait_for_epochs(workdir, process, 2)
    process.kill()
    process.communicate()

    process = start(environment, *command)
    wait_for_epochs(workdir, process, 5)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 128 + signal.SIGTERM, output
    assert "resuming relu_max after step" in output
    assert "the same command resumes" in output
    assert not (workdir / "summary.json").exists()

    process = start(environment, *command)
    wait_for_epochs(workdir, process, 8)
    process.send_signal(signal.SIGINT)
    code, output = finish(process)
    assert code == 128 + signal.SIGINT, output

    code, output = run(environment, *command)
    assert code == 0, output
    assert without_times(lines(workdir)) == without_times(lines(expected))
    assert without_times(read(workdir, "summary.json")) == without_times(
        read(expected, "summary.json")
    )
    assert (workdir / "predictions.npz").read_bytes() == (expected / "predictions.npz").read_bytes()
    (ours,), (theirs,) = (
        [
            {name: array.tobytes() for name, array in trained.params[layer].items()}
            for layer in ("c1",)
        ]
        for trained in map(checkpoints.load_trained, (str(workdir), str(expected)))
    )
    assert ours == theirs


def test_a_finished_run_run_again_trains_nothing(whole, environment):
    workdir, _ = whole
    before = without_times(read(workdir, "summary.json"))
    code, output = run(environment, "--config=configs/relu_max.py", f"--workdir={workdir}", *SMALL)
    assert code == 0
    assert "epoch 10/10" not in output
    assert without_times(read(workdir, "summary.json")) == before


@pytest.mark.slow
def test_a_sweep_over_seeds_is_one_population_with_an_interval(environment, tmp_path):
    code, output = run(
        environment,
        "--config=configs/tanh_max.py",
        f"--workdir={tmp_path / 'run'}",
        *SMALL,
        "--config.num_epochs=1",
        "--config.sweep.seed=(0,1,2)",
    )
    assert code == 0, output
    summary = read(tmp_path / "run", "summary.json")
    assert [trial["id"] for trial in summary["trials"]] == [
        f"tanh_max/seed={seed}" for seed in range(3)
    ]
    (variant,) = summary["variants"]
    errors = [trial["test_error"] for trial in summary["trials"]]
    assert variant["n"] == 3
    assert variant["test_error_mean"] == pytest.approx(np.mean(errors))
    low, high = variant["test_error_ci95"]
    assert low < np.mean(errors) < high
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.npz"))) == 1


@pytest.mark.slow
def test_a_diverged_run_says_so_and_is_no_error(environment, tmp_path):
    code, output = run(
        environment,
        "--config=configs/relu_max.py",
        f"--workdir={tmp_path / 'run'}",
        *SMALL,
        "--config.num_epochs=1",
        "--config.optimizer=sgd",
        "--config.learning_rate=1e9",
    )
    assert code == 0, output
    summary = read(tmp_path / "run", "summary.json")
    assert summary["trials"][0]["status"] == "diverged"
    assert summary["variants"][0]["diverged"] == 1
    assert "relu_max: diverged, 1 of 1 trial" in output
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--config.activaton=tanh",), "'activaton' is not a field (did you mean 'activation'?)"),
        (("--config.activation=leaky",), "activation='leaky' is not known; choose one of: relu"),
        (("--config.batch_size=many",), "flag --config.batch_size=many: invalid literal for int"),
        (("--config.optimiser.name=adam",), "optimiser"),
        (("--config.dataset=mnst",), "dataset 'mnst' is unknown; choose one of"),
        (("--config.data_dir=/nowhere",), "/nowhere"),
        (("--config.validation_examples=70000",), "validation_examples"),
        (("--config.sweep.seed=()",), "sweep.seed=() must be a list of one or more values"),
        (("tanh",), "'tanh' is not a flag; flags are written --name=value"),
    ],
)
def test_bad_input_is_one_line_before_any_work(environment, tmp_path, flags, message):
    code, output = run(
        environment,
        "--config=configs/relu_max.py",
        f"--workdir={tmp_path / 'run'}",
        "--config.dataset=mnist_5k",
        *flags,
    )
    assert code != 0
    assert message in output
    assert "Traceback" not in output
    assert "epoch 1" not in output
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    "flags", [(), ("--config=configs/missing.py",), ("--config=README.md",)], ids=str
)
def test_without_a_config_it_says_what_to_name(environment, flags):
    code, output = run(environment, *flags)
    assert code != 0
    assert "Traceback" not in output
    assert "--config" in output


def test_another_config_in_the_same_workdir_is_refused(whole, environment):
    workdir, _ = whole
    before = {path: path.read_bytes() for path in workdir.glob("*.*")}
    code, output = run(environment, "--config=configs/tanh_max.py", f"--workdir={workdir}", *SMALL)
    assert code == 1
    assert "it differs in: activation ('relu' there, 'tanh' now)" in output
    assert {path: path.read_bytes() for path in workdir.glob("*.*")} == before


def test_a_trained_workdir_predicts_and_its_report_is_drawn_again(whole, environment, digits):
    workdir, _ = whole
    picture = workdir / "digit.png"
    from PIL import Image

    with np.load(workdir / "predictions.npz") as file:
        right = int(np.flatnonzero(file["test_predictions"][0] == file["test_labels"])[0])
    Image.fromarray(digits.test_images[right, :, :, 0]).save(picture)
    code, output = run(
        environment, f"--workdir={workdir}", "--json", str(picture), module="lenet.predict"
    )
    picture.unlink()
    assert code == 0, output
    answer = json.loads(output.splitlines()[-1])
    assert answer["class"] == str(digits.test_labels[right])
    html = (workdir / "report.html").read_bytes()
    (workdir / "report.html").unlink()
    code, output = run(environment, f"--workdir={workdir}", module="lenet.report")
    assert code == 0, output
    assert (workdir / "report.html").read_bytes() == html
