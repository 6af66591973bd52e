"""Several processes on one run: real ones, on this machine's loopback, on 5,000 real digits."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest

from lenet import processes

CORES = sorted(os.sched_getaffinity(0))[:2]
# main.py on some of the cores, each of which is a device.
PROGRAM = """
import os, runpy, sys
os.sched_setaffinity(0, {cores})
sys.argv[0] = "main.py"
runpy.run_path("main.py", run_name="__main__")
"""
ROOT = pathlib.Path(__file__).parent.parent
SMALL = (
    "--config=configs/relu_max.py",
    "--config.dataset=mnist_5k",
    "--config.batch_size=64",
    "--config.num_epochs=3",
    "--config.sweep.seed=(0,1,2)",
)


@pytest.fixture
def environment(cache_dir, digits):
    return {**os.environ, "LENET_CACHE_DIR": str(cache_dir)}


def start(environment, *flags, cores=CORES):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(cores=cores), *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port(first=0):
    for port in range(first, 65536):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("localhost", port))
            return free.getsockname()[1]
    raise AssertionError("no port is free")


def start_both(environment, *flags):
    together = (f"--coordinator_address=localhost:{free_port()}", "--num_processes=2")
    return [
        start(environment, *flags, *together, f"--process_id={index}", cores=CORES[index:][:1])
        for index in range(2)
    ]


def slurm(port, index):
    """What Slurm tells a task of a job of two; JAX takes the port from the job's number."""
    return {
        "SLURM_JOB_ID": str(port - (65536 - 4096)),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
    }


def finish(process):
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def finish_both(both):
    return [finish(process) for process in both]


def lines(workdir):
    path = workdir / "metrics.jsonl"
    texts = path.read_text().splitlines() if path.exists() else []
    told = [json.loads(text) for text in texts if text.endswith("}")]
    return [{key: line[key] for key in line if key != "train_seconds"} for line in told]


def results(workdir):
    summary = json.loads((workdir / "summary.json").read_text())
    del summary["timing"], summary["command"]
    for variant in summary["variants"]:
        del variant["train_seconds"]
    return summary


@pytest.fixture
def one(environment, tmp_path):
    """The workdir of one process with two devices."""
    if len(CORES) < 2:
        pytest.skip("one process has as many devices as two of them only with two cores")
    code, output = finish(start(environment, *SMALL, f"--workdir={tmp_path / 'one'}"))
    assert code == 0, output
    return tmp_path / "one"


def assert_same(two, one):
    assert results(two) == results(one)
    assert lines(two) == lines(one)
    assert (two / "predictions.npz").read_bytes() == (one / "predictions.npz").read_bytes()


@pytest.mark.slow
def test_two_processes_find_what_one_with_two_devices_finds(environment, tmp_path, one):
    two = tmp_path / "two"
    told = finish_both(start_both(environment, *SMALL, f"--workdir={two}"))
    assert [code for code, _ in told] == [0, 0], told
    assert "epoch" not in told[1][1]  # One process shows the run.
    assert_same(two, one)


@pytest.mark.slow
def test_two_processes_stopped_and_resumed_find_it_too(environment, tmp_path, one):
    two = tmp_path / "two"
    both = start_both(environment, *SMALL, f"--workdir={two}")
    deadline = time.monotonic() + 100
    while not lines(two):
        assert all(process.poll() is None for process in both), finish_both(both)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    both[1].send_signal(signal.SIGTERM)  # One is told to stop, and both do.
    told = finish_both(both)
    assert [code for code, _ in told] == [128 + signal.SIGTERM] * 2, told
    assert "the same command resumes" in told[0][1]
    assert not (two / "summary.json").exists()

    told = finish_both(start_both(environment, *SMALL, f"--workdir={two}"))
    assert [code for code, _ in told] == [0, 0], told
    assert "resuming relu_max x 3 after step" in told[0][1]
    assert_same(two, one)


def test_on_slurm_they_find_each_other_and_what_fails_in_one_ends_both(environment, tmp_path):
    port = free_port(first=65536 - 4096)
    flags = (*SMALL, f"--workdir={tmp_path / 'run'}", "--distributed")
    both = [
        start({**environment, **slurm(port, index)}, *flags, *own)
        for index, own in enumerate([(), ("--config.data_dir=/nowhere",)])
    ]
    (code, output), (other, why) = finish_both(both)
    assert code == other == 1
    assert "process 1 failed" in output
    assert "/nowhere" in why
    assert "Traceback" not in output + why
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num_processes=0",), "num_processes=0 must be at least 1"),
        (("--num_processes=2", "--process_id=2"), "process_id=2 must be from 0 to"),
        (("--distributed",), "could not join the other processes"),
    ],
)
def test_bad_flags_are_one_line(environment, tmp_path, flags, message):
    code, output = finish(start(environment, *SMALL, f"--workdir={tmp_path / 'run'}", *flags))
    assert code == 1
    assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_one_process_is_the_primary_and_its_own_company():
    values = {"a": np.float32([-0.0, np.nan]), "b": np.arange(3)}
    assert processes.is_primary()
    assert processes.from_each([3, 4]).tolist() == [[3, 4]]
    assert processes.from_primary(lambda: {"x": 1.5}) == {"x": 1.5}
    shared = processes.share(values)
    assert {name: array.tobytes() for name, array in shared.items()} == {
        name: array.tobytes() for name, array in values.items()
    }
    gathered = processes.gather(jax.numpy.arange(3))
    assert isinstance(gathered, np.ndarray)
    assert gathered.tolist() == [0, 1, 2]


def test_an_error_reaches_the_caller():
    def fail():
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        processes.from_primary(fail)


def test_devices_of_different_processes_take_turns():
    devices = [types.SimpleNamespace(process_index=index) for index in (0, 0, 0, 1, 2, 2)]
    ordered = processes.in_turns(devices)
    assert [device.process_index for device in ordered] == [0, 1, 2, 0, 2, 0]
