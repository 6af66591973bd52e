import io
import json
import os
import sys
import types

import jax
import numpy as np
import pytest
import rich.console

from benchmarks import (
    breakdown,
    contestants,
    evaluate,
    machine,
    memory,
    results,
    startup,
    steps,
    throughput,
)
from benchmarks.results import Spread
from lenet.model import LeNet


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 32, 32, 1), np.uint8)
    return contestants.create_task(pixels, rng.integers(0, 10, 40, np.int32), "noise", 16, 1)


@pytest.fixture(scope="module")
def paper(task):
    """One pattern at a time through the LeNet-5 of 1998."""
    images = (task.pixels, task.labels, "noise")
    return contestants.create_task(*images, 1, 1, "lenet5_1998")


@pytest.fixture(scope="module")
def paper_entries(paper):
    entered = (contestants.ours(1), contestants.ours(2, "sdlm"))
    return {who.name: who.make(paper) for who in entered}


@pytest.fixture(scope="module")
def start(task):
    return task.start


@pytest.fixture(scope="module")
def entries(task):
    everyone = throughput.contestants([2], everyone=True)
    # torch.compile takes half a minute and a C++ compiler.
    return {who.name: who.make(task) for who in everyone if who.name != "PyTorch compile"}


@pytest.fixture(scope="module")
def outcomes(entries, start):
    return {name: entry.first_step(start) for name, entry in entries.items()}


def test_a_training_step_counts_the_flop_of_its_products_by_hand():
    c1, c3 = 28 * 28 * 6 * 25, 10 * 10 * 16 * 6 * 25
    c5, f6, output = 400 * 120, 120 * 84, 84 * 10
    by_hand = 2 * (2 * c1 + 3 * (c3 + c5 + f6 + output))
    assert contestants.training_flop(LeNet(), (32, 32, 1)) == by_hand == 2_263_920

    s2, s4, table_1, codes = 14 * 14 * 6, 5 * 5 * 16, 10 * 10 * 60 * 25, 84 * 10
    by_hand = 2 * (2 * c1 + 3 * (s2 + table_1 + s4 + c5 + f6) + 2 * codes)
    paper = LeNet(pooling="subsampling", connections="table1", head="rbf")
    assert contestants.training_flop(paper, (32, 32, 1)) == by_hand


def test_the_first_step_of_all_contestants_agrees(task, outcomes):
    contestants.check_agreement(outcomes, task)
    for name, outcome in outcomes.items():
        assert outcome.loss.shape == ((2,) if "2 models" in name else (1,))


@pytest.mark.parametrize("place", [("c1", "kernel"), ("c3", "bias"), ("c5", "kernel")])
def test_one_wrong_weight_stops_the_benchmark(task, start, entries, outcomes, place):
    layer, leaf = place
    wrong = jax.tree.map(np.array, start.params)
    wrong[layer][leaf].flat[0] += 0.1
    spoilt = entries["plain Flax"].first_step(contestants.Start(wrong, start.chosen))
    with pytest.raises(contestants.AgreementError, match="plain Flax"):
        contestants.check_agreement({**outcomes, "plain Flax": spoilt}, task)


def test_another_batch_stops_the_benchmark(task, start, entries, outcomes):
    other = np.setdiff1d(np.arange(40), start.chosen)[:16]
    spoilt = entries["plain Flax"].first_step(contestants.Start(start.params, other))
    with pytest.raises(contestants.AgreementError, match="first loss"):
        contestants.check_agreement({**outcomes, "plain Flax": spoilt}, task)


def test_a_member_that_is_not_trained_stops_the_benchmark(task, start, outcomes):
    two = outcomes["ours, 2 models"]
    idle = jax.tree.map(
        lambda after, before: np.stack([after[0], before]), dict(two.params), dict(start.params)
    )
    spoilt = {**outcomes, "ours, 2 models": contestants.Outcome(two.loss, idle)}
    with pytest.raises(contestants.AgreementError, match="after one step"):
        contestants.check_agreement(spoilt, task)


@pytest.mark.parametrize(
    ("argv", "told"), [(["x", "fast"], "'fast' is not a flag"), (["x"], "population=0 must")]
)
def test_what_is_wrong_on_a_command_line_is_said_in_one_line(monkeypatch, argv, told):
    def refuse(values):
        raise ValueError("population=0 must be at least 1")

    monkeypatch.setattr(results.app, "run", lambda main: main(argv))
    with pytest.raises(SystemExit, match=rf"^error: {told}"):
        results.run_command(refuse)


def test_cuda_graphs_are_compared_on_a_gpu_alone():
    pytest.importorskip("torch")
    names = {
        platform: [who.name for who in throughput.contestants([1], platform=platform)]
        for platform in ("cpu", "gpu")
    }
    assert names["gpu"] == ["ours", "PyTorch eager", "PyTorch CUDA graph", "plain Flax"]
    assert names["cpu"] == ["ours", "PyTorch eager", "plain Flax"]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with pytest.raises(ValueError, match=r"--platform=gpu.*pip install"):
        throughput.choose_platform("gpu")


@pytest.mark.slow
def test_a_step_is_broken_down_by_layer_and_the_products_of_each_are_seen(task):
    shares = breakdown.measure(task, 1)
    products = {share.part.layer for share in shares if share.part.product}
    assert products == {"c1", "c3", "c5", "f6", "output"}
    layers = {share.part.layer for share in shares}
    assert layers == {*breakdown.LAYERS, breakdown.REST}
    rates = {share.part: share.flop_rate for share in shares if share.flop_rate is not None}
    by_hand = 2 * 3 * 16 * 400 * 120
    (c5,) = (share for share in shares if share.part == breakdown.Part("c5", True))
    assert rates[c5.part] == pytest.approx(by_hand / c5.seconds)
    assert all(part.product for part in rates)


def test_every_contestant_trains_past_the_end_of_an_epoch(entries):
    for entry in entries.values():
        assert entry.train(100) > 0


def test_ratios_are_formed_within_a_round():
    slow, fast = Spread((2.0, 20.0, 3.0)), Spread((1.0, 10.0, 3.0))
    assert (slow / fast).rounds == (2.0, 2.0, 1.0)
    assert (slow / fast).median == 2.0
    assert slow.text(0) == "3 (2 - 20)"


def test_all_take_turns_and_the_warm_up_is_not_counted(monkeypatch):
    monkeypatch.setattr(throughput, "SETTLE_SECONDS", 0)
    calls = []
    turns = {name: lambda name=name: float(calls.append(name) or len(calls)) for name in "ab"}
    measured = throughput.take_turns(turns, 2, lambda line: None)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert measured == {"a": Spread((4.0, 5.0)), "b": Spread((3.0, 6.0))}


def test_the_benchmark_runs_without_pytorch(tmp_path, monkeypatch, task):
    shown = io.StringIO()
    images = (task.pixels, task.labels, "noise")
    monkeypatch.setattr(throughput, "CONSOLE", rich.console.Console(file=shown, width=120))
    monkeypatch.setattr(throughput, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(throughput, "has_torch", lambda: False)
    monkeypatch.setattr(throughput, "load_images", lambda: images)
    monkeypatch.setattr(machine, "SIDE", 8)
    throughput.run([2], 16, 1, 1.0, 1, str(tmp_path / "results.json"))
    assert "pip install torch" in shown.getvalue()
    assert "plain Flax" in shown.getvalue()
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["ours, 2 models", "plain Flax"]
    assert set(rows[0]["time_ratios"]) == {"plain Flax"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([], 16, 1, 1.0, 1), "population"),
        (([1, 1], 16, 1, 1.0, 1), "population"),
        (([0], 16, 1, 1.0, 1), "population"),
        (([1], 16, 0, 1.0, 1), "repeats"),
        (([1], 16, 1, 1.5, 1), "fraction"),
        (([1], 16, 1, 1.0, 0), "threads"),
    ],
)
def test_an_argument_out_of_range_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        throughput.run(*arguments, None)


def test_a_batch_larger_than_the_data_is_refused(task):
    with pytest.raises(ValueError, match="batch_size=41 is out of range; choose 1 to 40"):
        contestants.create_task(task.pixels, task.labels, "noise", 41, 1)


def test_a_process_is_measured_by_its_own_time_and_memory():
    code = "import time; held = b'x' * (256 << 20); time.sleep(0.2)"
    usage = startup.measure([sys.executable, "-c", code], os.environ)
    assert usage.seconds >= 0.2
    assert usage.peak_bytes >= 256 * 2**20


def test_a_run_that_fails_is_reported_with_its_last_line():
    code = "import sys; print('first'); sys.exit('what went wrong')"
    with pytest.raises(ValueError, match="gave status 1: what went wrong"):
        startup.measure([sys.executable, "-c", code], os.environ)


def test_the_cost_of_a_model_is_the_slope_of_a_line():
    assert memory.slope([2, 4, 8], [100 + 3 * 2, 100 + 3 * 4, 100 + 3 * 8]) == pytest.approx(3)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(([1], [128]), "population"), (([0, 64, 65], [128]), "population"), (([64, 65], []), "batch")],
)
def test_memory_is_not_measured_of_too_little(arguments, named):
    with pytest.raises(ValueError, match=named):
        memory.run(*arguments, None)


def test_the_memory_of_a_population_is_that_of_its_process(monkeypatch, tmp_path):
    asked = []

    def measure(command, environment):
        asked.append(command)
        members = int(command[command.index("--members") + 1])
        return startup.Usage(1.0, (200 + 5 * members) * 2**20)

    monkeypatch.setattr(memory, "measure", measure)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    shown = io.StringIO()
    monkeypatch.setattr(memory, "CONSOLE", rich.console.Console(file=shown, width=120))
    memory.run([1, 2, 4], [32, 128], str(tmp_path / "memory.json"))
    written = json.loads((tmp_path / "memory.json").read_text())
    assert written["mebibytes_per_model_more"]["ours"] == pytest.approx(5)
    ours = [row for row in written["rows"] if row["name"] == "ours"]
    assert [(row["members"], row["batch_size"]) for row in ours] == [
        (1, 128),
        (2, 128),
        (4, 128),
        (1, 32),
    ]
    assert "5.00 MiB for one model more" in shown.getvalue()


def run_steps(monkeypatch, folder, task, **arguments):
    """What the command prints and what it writes, in one round without PyTorch."""
    shown = io.StringIO()
    monkeypatch.setattr(steps, "CONSOLE", rich.console.Console(file=shown, width=160))
    monkeypatch.setattr(throughput, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(throughput, "has_torch", lambda: False)
    monkeypatch.setattr(contestants, "load_images", lambda: (task.pixels, task.labels, "noise"))
    monkeypatch.setattr(machine, "SIDE", 8)
    steps.run([task.recipe.batch_size], 1, 1, str(folder / "steps.json"), **arguments)
    return shown.getvalue(), json.loads((folder / "steps.json").read_text())


def test_steps_are_timed_at_every_batch_size(monkeypatch, tmp_path, task):
    shown, written = run_steps(monkeypatch, tmp_path, task)
    assert [batch["batch_size"] for batch in written["batches"]] == [16]
    rows = written["batches"][0]["rows"]
    assert [row["name"] for row in rows] == ["ours", "plain Flax"]
    assert "core time /" in shown
    assert "plain Flax" in shown


def test_steps_of_1998_are_timed_with_the_papers_optimizer(monkeypatch, tmp_path, paper):
    shown, written = run_steps(monkeypatch, tmp_path, paper, network="lenet5_1998", populations=[2])
    rows = written["batches"][0]["rows"]
    assert [(row["name"], row["members"]) for row in rows] == [
        ("ours", 1),
        ("ours, sdlm, 2 models", 2),
    ]
    assert all(row["core_seconds_per_model_step"]["median"] > 0 for row in rows)
    assert "cores" in shown


def test_what_an_epoch_begins_with_is_spread_over_its_images(monkeypatch, paper, paper_entries):
    entry = paper_entries["ours, sdlm, 2 models"]
    clock = iter([0.0, 10.0, 13.0])
    monkeypatch.setattr(contestants, "time", types.SimpleNamespace(perf_counter=clock.__next__))
    # 10 s before 40 images, and 3 s for 20 of them.
    assert entry.train(20) == pytest.approx(20 * (10 / 40 + 3 / 20))


def test_pytorch_takes_the_first_step_of_1998(paper, paper_entries):
    pytest.importorskip("torch")
    from benchmarks import pytorch

    eager = pytorch.eager(1).make(paper)
    outcomes = {name: entry.first_step(paper.start) for name, entry in paper_entries.items()}
    contestants.check_agreement({**outcomes, "PyTorch": eager.first_step(paper.start)}, paper)
    assert eager.train(50) > 0

    wrong = jax.tree.map(np.array, paper.start.params)
    wrong["s2"]["coefficient"][0] *= 1.1
    spoilt = eager.first_step(contestants.Start(wrong, paper.start.chosen))
    with pytest.raises(contestants.AgreementError, match="PyTorch"):
        contestants.check_agreement({**outcomes, "PyTorch": spoilt}, paper)


def test_steps_are_compared_with_the_fastest_of_the_others():
    def row(name, seconds, cores):
        return steps.Row(name, 1, Spread((seconds,)), Spread((cores,)), 0.5)

    rows = [row("ours", 1e-4, 1.0), row("A", 4e-4, 2.0), row("B", 5e-4, 1.0)]
    shown = io.StringIO()
    measurement = steps.Measurement(1, "noise", rows, {})
    rich.console.Console(file=shown, width=160).print(steps.table(measurement))
    names = next(line.split() for line in shown.getvalue().splitlines() if "busy" in line)
    assert names == ["us", "busy", "one", "core", "A", "B", "product"]
    [ours] = [line.split() for line in shown.getvalue().splitlines() if "ours" in line]
    assert ours == ["ours", "100", "1.0", "100", "0.25", "0.20", "50", "%"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([], 1, 1, None), "batch_size"),
        (([1], 0, 1, None), "repeats"),
        (([1], 1, 1, None, "relu_max", [2, 2]), "population"),
        (([1], 1, 1, None, "relu_max", [1], 0), "steps"),
    ],
)
def test_steps_name_an_argument_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        steps.run(*arguments)


def test_evaluation_is_timed_once_all_name_the_same_classes(monkeypatch, tmp_path, task):
    monkeypatch.setattr(evaluate, "CONSOLE", rich.console.Console(file=io.StringIO(), width=120))
    monkeypatch.setattr(throughput, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(contestants, "load_images", lambda: (task.pixels, task.labels, "noise"))
    monkeypatch.setattr(contestants, "create_task", lambda *arguments: task)
    monkeypatch.setattr(machine, "SIDE", 8)
    evaluate.run(3, 1, 1, str(tmp_path / "evaluate.json"))
    written = json.loads((tmp_path / "evaluate.json").read_text())
    assert written["images"] == 40
    assert all(row["seconds"]["median"] > 0 for row in written["rows"])
    assert all(row["share_of_matrix_product"] > 0 for row in written["rows"])


def test_other_classes_stop_the_benchmark():
    classes = np.arange(1000)[None] % 10
    evaluate.check_agreement({"a": classes, "b": classes})
    other = np.where(np.arange(1000) < 5, 11, classes)
    with pytest.raises(contestants.AgreementError, match=r"b and a differ on 0\.50 % of images"):
        evaluate.check_agreement({"a": classes, "b": other})


def test_a_flag_that_lists_no_numbers_is_named():
    assert results.numbers("population", ["1", "16"]) == [1, 16]
    with pytest.raises(ValueError, match="population=1,many must be numbers, such as 1,16"):
        results.numbers("population", ["1", "many"])
