"""Sweeps from start to finish, in this process, on real digits."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from lenet import experiment, memory, population, program, workdir

SMALL = (4, 8, 30, 20)


def config(swept, **fields):
    made = base.get_config()
    made.update({"dataset": "mnist_5k", "num_epochs": 1, "batch_size": 64, "widths": SMALL})
    made.update(fields)
    made.sweep = ConfigDict(swept)
    return made


def run(made, folder, draw=False):
    return experiment.run(made, "x", str(folder), draw=draw)


def results(summary):
    """What must not depend on the clock."""
    return json.loads(json.dumps({key: value for key, value in summary.items() if key != "timing"}))


@pytest.fixture(scope="module")
def three_seeds(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("sweep") / "three"
    return folder, run(config({"seed": (0, 1, 2)}), folder)


def test_adding_seeds_trains_only_those(three_seeds, tmp_path, monkeypatch, digits):
    _, whole = three_seeds
    first = run(config({"seed": (0, 1)}), tmp_path / "run")
    trained = []
    train = population.train
    monkeypatch.setattr(
        population,
        "train",
        lambda trials, *rest, **more: trained.append(trials) or train(trials, *rest, **more),
    )
    second = run(config({"seed": (0, 1, 2)}), tmp_path / "run")
    assert [[trial.seed for trial in group] for group in trained] == [[2]]
    assert second["trials"][:2] == first["trials"]
    for ours, theirs in zip(second["trials"], whole["trials"], strict=True):
        assert ours["id"] == theirs["id"]
        # Other numbers of members are other programs: the same to a few images of 1,000.
        assert ours["test_error"] == pytest.approx(theirs["test_error"], abs=0.01)


def test_taking_trials_away_is_another_config(three_seeds):
    folder, _ = three_seeds
    with pytest.raises(workdir.WorkdirError, match="it differs in: sweep"):
        run(config({"seed": (0, 1)}), folder)


def test_a_finished_population_is_neither_compiled_nor_trained_again(three_seeds, monkeypatch):
    folder, summary = three_seeds

    def forbidden(*args):
        raise AssertionError("compiled again")

    monkeypatch.setattr(program, "compile_program", forbidden)
    assert results(run(config({"seed": (0, 1, 2)}), folder)) == results(summary)


def test_a_damaged_result_is_evaluated_again_from_its_checkpoint(three_seeds):
    folder, summary = three_seeds
    (path,) = (folder / "checkpoints").glob("*.npz")
    path.write_bytes(path.read_bytes()[:-100])
    again = run(config({"seed": (0, 1, 2)}), folder)
    assert results(again) == results(summary)


@pytest.mark.slow
def test_a_population_too_large_for_memory_is_split(three_seeds, tmp_path, monkeypatch):
    _, summary = three_seeds
    needed = []
    split = experiment._split

    def measured(group, compiled):
        needed.append(compiled.bytes_per_device)
        return split(group, compiled)

    monkeypatch.setattr(experiment, "_split", measured)
    # As much as 2 of the 4 members (one is a copy) take, that is one a device.
    monkeypatch.setattr(
        memory, "free_bytes", lambda mesh: 0.8 * needed[0] / experiment.MEMORY_SHARE
    )
    divided = run(config({"seed": (0, 1, 2)}), tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.npz"))
    assert names == ["population-000.npz", "population-001.npz"]
    for ours, theirs in zip(divided["trials"], summary["trials"], strict=True):
        assert ours["test_error"] == pytest.approx(theirs["test_error"], abs=0.01)


@pytest.mark.slow
def test_memory_needed_grows_with_the_members(digits):
    made = config({}, widths=(6, 16, 120, 84))
    trial = experiment.sweep.plan(made, "x").final({})[0]
    mesh = program.mesh_for(1)
    images = program.place(np.zeros((100, 32, 32, 1), np.uint8), np.zeros(100, np.int32), mesh)
    few, many = (
        program.compile_program(
            program.Recipe(
                experiment.models.create(trial.config, 10),
                "adam",
                "constant",
                "cross_entropy",
                64,
                1,
                100,
                experiment.datasets.Affine((1.0,), (0.0,)),
            ),
            count,
            images,
            mesh,
        ).bytes_per_device
        for count in (1, 4)
    )
    # At least the parameters and Adam's two moments: 3 x 61,706 x 4 bytes a member.
    assert many - few > 3 * 3 * 61_706 * 4


def test_tuning_never_sees_the_test_images(tmp_path, digits):
    made = config(
        {"learning_rate": (1e-5, 3e-3), "seed": (0, 1)},
        tune=("learning_rate",),
        tune_seeds=(7, 8),
        validation_examples=500,
    )
    summary = run(made, tmp_path / "run")
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    tuning = [line for line in lines if line["stage"] == "tune"]
    assert len(tuning) == 4
    assert all(line["test_error"] is None for line in tuning)
    assert all(line["validation_error"] is not None for line in tuning)
    assert summary["variants"][0]["tuned"] == {"learning_rate": 3e-3}
    chosen = {row["overrides"]["learning_rate"]: row["chosen"] for row in summary["tuning"]}
    assert chosen == {1e-5: False, 3e-3: True}
    assert summary["dataset"]["train_examples"] == 4000
    assert [trial["seed"] for trial in summary["trials"]] == [0, 1]
    assert all(trial["validation_error"] is None for trial in summary["trials"])


def test_training_size_can_be_swept(tmp_path, digits):
    summary = run(config({"train_examples": (300, 3000)}), tmp_path / "run")
    small, large = (trial["test_error"] for trial in summary["trials"])
    assert small > large


def test_a_path_of_variants_with_rates_and_inputs_of_their_own(tmp_path, digits):
    made = config(
        {"seed": (0, 1)},
        tune=("learning_rate",),
        tune_seeds=(7,),
        validation_examples=500,
        train_examples=1500,
        path=("late", "early"),
    )
    made.variants.late = {"normalization": "lecun", "learning_rate": 1e-3}
    made.variants.early = {"learning_rate": (1e-5, 3e-3)}
    made.references.early = ("late",)
    folder = tmp_path / "run"
    summary = run(made, folder, draw=True)
    assert [variant["name"] for variant in summary["variants"]] == ["late", "early"]
    assert {entry["variant"] for entry in summary["tuning"]} == {"early"}
    tuned = [variant["tuned"]["learning_rate"] for variant in summary["variants"]]
    assert tuned == [1e-3, 3e-3]
    described = json.loads((folder / "dataset.json").read_text())
    assert described["normalizations"]["lecun"]["scale"] == pytest.approx([1.275 / 255])
    assert described["normalizations"]["unit"]["scale"] == pytest.approx([1 / 255])
    late, early = (
        np.mean([t["test_error"] for t in summary["trials"] if t["variant"] == name])
        for name in ("late", "early")
    )
    (step,) = summary["path"]["steps"]
    assert (step["a"], step["b"]) == ("early", "late")
    assert step["difference"] == pytest.approx(early - late)
    assert summary["references"]["early"][0]["difference"] == pytest.approx(late - early)
    assert all(variant["train_seconds"] > 0 for variant in summary["variants"])
    page = (folder / "report.md").read_text()
    assert "## The path from late to early" in page
    assert "learning rate 0.001 (given)" in page
