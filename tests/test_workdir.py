import json
import subprocess
import sys

import pytest

from configs import base
from lenet import workdir
from lenet.workdir import WorkdirError


def config(**fields):
    made = base.get_config()
    made.update(fields)
    return made


def test_a_new_workdir_gets_the_config(tmp_path):
    with workdir.claimed(tmp_path / "a" / "b", config(seed=5), overwrite=False) as begin:
        begin()
    assert json.loads((tmp_path / "a" / "b" / "config.json").read_text())["seed"] == 5


def test_the_same_config_may_come_again(tmp_path):
    for _ in range(2):
        with workdir.claimed(tmp_path, config(), overwrite=False) as begin:
            begin()
            (tmp_path / "kept").touch()
    assert (tmp_path / "kept").exists()


def test_another_config_is_refused_by_the_fields_that_differ(tmp_path):
    with workdir.claimed(tmp_path, config(), overwrite=False) as begin:
        begin()
    other = config(seed=1, activation="tanh")
    with pytest.raises(WorkdirError) as raised, workdir.claimed(tmp_path, other, overwrite=False):
        pass
    assert "activation ('relu' there, 'tanh' now), seed (0 there, 1 now)" in str(raised.value)
    assert "--overwrite" in str(raised.value)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0


def test_overwrite_starts_over_but_only_when_the_work_begins(tmp_path):
    with workdir.claimed(tmp_path, config(), overwrite=False) as begin:
        begin()
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "metrics.jsonl").touch()
    with workdir.claimed(tmp_path, config(seed=1), overwrite=True):
        pass
    assert (tmp_path / "metrics.jsonl").exists()
    with workdir.claimed(tmp_path, config(seed=1), overwrite=True) as begin:
        begin()
        assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.json"}
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


def test_a_run_that_fails_before_it_begins_leaves_nothing(tmp_path):
    for folder in (tmp_path / "new", tmp_path):
        with (
            pytest.raises(RuntimeError, match="no data"),
            workdir.claimed(folder, config(), overwrite=False),
        ):
            raise RuntimeError("no data")
    with workdir.claimed(tmp_path / "new", config(seed=1), overwrite=False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_files_that_are_no_run_are_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    for overwrite in (False, True):
        with (
            pytest.raises(WorkdirError, match="holds files but no run"),
            workdir.claimed(tmp_path, config(), overwrite=overwrite),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "a").write_text("x")
    with (
        pytest.raises(WorkdirError, match="is a file; name a folder"),
        workdir.claimed(tmp_path / "a", config(), overwrite=False),
    ):
        pass


def test_a_broken_config_json_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with (
        pytest.raises(WorkdirError, match=r"config.json is not valid JSON"),
        workdir.claimed(tmp_path, config(), overwrite=False),
    ):
        pass


def test_two_runs_cannot_share_a_workdir(tmp_path):
    program = (
        "import pathlib, sys; from configs import base; from lenet import workdir\n"
        "with workdir.claimed(pathlib.Path(sys.argv[1]), base.get_config(), overwrite=False): pass"
    )
    with workdir.claimed(tmp_path, config(), overwrite=False):
        second = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True
        )
    assert "is in use by another run" in second.stderr


def test_metrics_after_the_checkpoint_are_dropped_and_so_is_a_line_cut_short(tmp_path):
    lines = [{"trial": trial, "epoch": epoch} for epoch in (1, 2, 3) for trial in ("a", "b", "c")]
    workdir.append_metrics(tmp_path, lines)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"trial": "a", "epo')
    workdir.keep_metrics(tmp_path, ["a", "b"], epochs=2)
    kept = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in kept if line["trial"] != "c"] == [
        line for line in lines if line["trial"] != "c" and line["epoch"] <= 2
    ]
    assert [line["epoch"] for line in kept if line["trial"] == "c"] == [1, 2, 3]
