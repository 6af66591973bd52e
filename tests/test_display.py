import io
import logging

import rich.console
from ml_collections import ConfigDict

from configs import base
from lenet import display, model, sweep
from lenet.model import LeNet


def shown(table, width=160):
    console = rich.console.Console(file=io.StringIO(), width=width)
    console.print(table)
    return [line.split() for line in console.file.getvalue().splitlines() if line.strip()]


def test_the_plan_counts_models_populations_epochs_and_steps():
    config = base.get_config()
    config.update({"num_epochs": 3, "tune": ("learning_rate",), "validation_examples": 100})
    config.sweep = ConfigDict(
        {"pooling": ("max", "average"), "learning_rate": (0.1, 0.2), "seed": (0, 1, 2)}
    )
    lines = shown(display.plan_table(sweep.plan(config, "x"), lambda trial: 30))
    rows = [line for line in lines if line[0] in ("tune", "final")]
    assert rows == [
        ["tune", "pooling=max", "4", "3", "30"],
        ["tune", "pooling=average", "4", "3", "30"],
        ["final", "pooling=max", "3", "3", "30"],
        ["final", "pooling=average", "3", "3", "30"],
    ]
    text = " ".join(word for line in lines for word in line)
    assert "in all 14 models in 4 populations, 42 model-epochs, 420 model-steps" in text


def test_a_long_variant_is_wrapped_between_its_fields_alone():
    config = base.get_config()
    config.sweep = ConfigDict(
        {"activation": ("scaled_tanh",), "pooling": ("subsampling",), "seed": (0, 1)}
    )
    table = display.plan_table(sweep.plan(config, "x"), lambda trial: 1_000_000)
    assert [line for line in shown(table, width=70) if line[0] == "final"] == [
        ["final", "activation=scaled_tanh,", "2", "10", "1,000,000"]
    ]
    assert ["pooling=subsampling"] in shown(table, width=70)


def test_variants_with_the_same_network_share_a_table():
    small, large = (model.summarize(LeNet(head=head), (32, 32, 1)) for head in ("gap", "dense"))
    networks = {"a": large, "b": small, **dict.fromkeys("cdef", large)}
    first, second = display.model_tables(networks)
    assert first.title == "a; c; d and 2 more"
    assert second.title == "b"
    assert ["total", "61,706", "429,342", "416,520"] in shown(first)


def test_the_model_is_shown_layer_by_layer():
    lines = shown(display.model_table("relu_max", model.summarize(LeNet(), (32, 32, 1))))
    assert ["c3", "10x10x16", "14x14", "2,416", "241,600", "240,000"] in lines
    assert ["total", "61,706", "429,342", "416,520"] in lines


def test_without_a_terminal_progress_is_a_line_now_and_then(monkeypatch, caplog):
    monkeypatch.setattr(display, "CONSOLE", rich.console.Console(file=io.StringIO()))
    clock = iter([0.0, 10.0, 40.0, 45.0])
    monkeypatch.setattr(display.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, logger="lenet"), display.progress("x", 100, 20) as show:
        for done in (30, 60, 65):
            show(done)
    # 40 of 80 steps in 40 seconds.
    assert [record.getMessage() for record in caplog.records] == ["x: 60 % done, 40.0 s left"]


def test_one_of_several_processes_shows_the_run(monkeypatch):
    package = logging.getLogger("lenet")
    for target, name in (
        (display.CONSOLE, "quiet"),
        (package, "handlers"),
        (package, "level"),
        (package, "propagate"),
        (display.threading, "excepthook"),
        (display.sys, "unraisablehook"),
    ):
        monkeypatch.setattr(target, name, getattr(target, name))
    display.show_logs()
    assert not display.CONSOLE.quiet
    assert package.level == logging.INFO
    display.show_warnings_only()
    assert display.CONSOLE.quiet
    assert package.level == logging.WARNING
