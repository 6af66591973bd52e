"""The claims: rules, what their examinations compute, and all of them from start to finish."""

import dataclasses
import importlib.util
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.special
from ml_collections import ConfigDict

from configs import claims as claims_config
from lenet import checkpoints, data, model, sweep, verdicts
from lenet.claims import (
    CLAIMS,
    activations,
    firewall,
    kernels,
    linearity,
    parameters,
    pooling,
    pytorch,
    rules,
    tracing,
)
from lenet.claims.claim import Claim, Context, Finding
from lenet.interop import torch as interop
from lenet.model import LeNet

DATASET = {
    "image_shape": [32, 32, 1],
    "native_shape": [28, 28, 1],
    "class_names": [str(digit) for digit in range(10)],
    "normalization": {"scale": [1 / 255], "offset": [0.0]},
}


def trained(**choices):
    network = LeNet(**choices)
    params = model.init_params(network, jax.random.key(0), (32, 32, 1))
    return checkpoints.Trained("x/seed=0", 1, ConfigDict(), network, params, DATASET)


def context(tmp_path, quick=True):
    made = claims_config.get_config()
    return Context(tmp_path, made.base, quick, "", verdicts.RESULTS)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-2.0, -1.0), rules.SUPPORTED),
        ((1.0, 2.0), rules.REFUTED),
        ((-1.0, 1.0), rules.UNDECIDED),
        ((-1.0, 0.0), rules.UNDECIDED),
        (None, rules.UNDECIDED),
    ],
)
def test_a_verdict_takes_the_whole_interval(interval, verdict):
    assert rules.below(interval) == verdict
    turned = interval and (-interval[1], -interval[0])
    assert rules.above(turned) == verdict


def test_a_number_lies_within_bounds_if_its_interval_does():
    assert rules.within((0.2, 0.3), 0.1, 0.4) == rules.SUPPORTED
    assert rules.within((0.0, 0.3), 0.1, 0.4) == rules.UNDECIDED
    assert rules.within((0.5, 0.6), 0.1, 0.4) == rules.REFUTED


def test_one_refuted_statement_refutes_them_all_and_a_majority_needs_more_than_half():
    yes, no, open_ = rules.SUPPORTED, rules.REFUTED, rules.UNDECIDED
    assert rules.all_of((yes, yes)) == yes
    assert rules.all_of((yes, open_)) == open_
    assert rules.all_of((yes, open_, no)) == no
    assert rules.majority((yes, yes, no)) == yes
    assert rules.majority((yes, no)) == open_
    assert rules.majority((yes, yes, open_, open_)) == open_
    for rule in (rules.all_of, rules.majority):
        with pytest.raises(ValueError, match="nothing to decide"):
            rule(())


def test_published_networks_have_their_published_parameters():
    # The counts of torchvision's vgg16 and of the AlexNet of 2012 with its two groups.
    assert sum(parameters.VGG_16.parameters) == 138_357_544
    assert sum(parameters.ALEXNET.parameters) == 60_965_224


@pytest.mark.slow
def test_the_affine_map_is_the_network_with_average_pooling_and_not_with_max(digits):
    images = jnp.asarray(data.pad(digits.test_images[:20]) / np.float32(255))
    linear = linearity.departure(trained(activation="identity", pooling="average"), images)
    assert linear < linearity.ROUNDING
    for other in ({"activation": "identity", "pooling": "max"}, {"pooling": "average"}):
        assert linearity.departure(trained(**other), images) > 100 * linearity.ROUNDING


def test_shifts_move_pixels_and_lose_what_goes_out():
    image = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)
    expected = np.array([[0, 0, 0], [0, 1, 2], [0, 4, 5]])
    np.testing.assert_array_equal(pooling.shifted(image, 1, 1)[0, ..., 0], expected)
    expected = np.array([[4, 5, 6], [7, 8, 9], [0, 0, 0]])
    np.testing.assert_array_equal(pooling.shifted(image, -1, 0)[0, ..., 0], expected)


def test_there_are_eight_directions_and_one_way_to_stay():
    assert pooling.directions(0) == [(0, 0)]
    assert len(pooling.directions(3)) == 8
    assert {max(map(abs, each)) for each in pooling.directions(3)} == {3}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "side"), [("average", 16), ("none", 9)])
def test_the_effective_field_lies_within_the_theoretical_one(kind, side, digits):
    images = data.pad(digits.test_images[:2]) / np.float32(255)
    # The paper's geometry: 5, halved, 5, halved is 16 pixels; 5 and 5 without halving are 9.
    field = pooling.effective_field(trained(pooling=kind, activation="tanh"), images)
    rows, columns = np.nonzero(field)
    assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == side
    assert pooling.side(field) <= side


@pytest.mark.slow
def test_a_consistent_network_is_one_that_sees_nothing(digits):
    blind = trained()
    nothing = jax.tree.map(jnp.zeros_like, blind.params)
    blind = dataclasses.replace(blind, params=nothing)
    errors, same = pooling.under_shifts(blind, digits, 50)
    np.testing.assert_array_equal(same, 1)
    assert len(errors) == pooling.FARTHEST + 1


def test_a_unit_is_flat_where_its_slope_is():
    x = jnp.linspace(-6.0, 6.0, 241)
    slope = scipy.special.expit(x) * scipy.special.expit(-x)
    expected = slope < tracing.FLAT * 0.25
    np.testing.assert_array_equal(tracing.flat(x, "sigmoid"), expected)
    np.testing.assert_array_equal(tracing.flat(x, "relu"), np.asarray(x) <= 0)


def test_steps_to_an_error_are_the_first_and_twice_all_if_never():
    traced = tracing.Trace(
        (7, 9), np.array([0, 5, 10]), np.array([[1, 0.02, 0.3], [1, 1, 1]]), {}, {}
    )
    assert traced.steps_to(0.02) == {7: 5, 9: 20}


@pytest.mark.slow
def test_a_trace_trains_as_a_run_does_and_looks_at_every_step(digits, tmp_path):
    config = activations.studies(context(tmp_path))["activations"]
    config.train_examples = 0
    trials = sweep.plan(config, "x").final({})[:2]
    small = data.split(digits, 256)
    traced = tracing.trace(trials, small, every=1, examples=64, last=10**9)
    np.testing.assert_array_equal(traced.steps, np.arange(2))
    assert traced.seeds == (0, 1)
    assert traced.error.shape == (2, 2)
    # Before the first step: the initial networks themselves, differentiated here.
    params = model.init_params(LeNet(pooling="average"), _init_key(0), (32, 32, 1))
    images = jnp.asarray(data.pad(small.train_images[:64]) / np.float32(255))

    def loss(params):
        logits = LeNet(pooling="average").apply({"params": params}, images)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), small.train_labels[:64, None], 1)
        return -picked.mean()

    gradient = jax.grad(loss)(params)["c1"]["kernel"]
    expected = float(jnp.sqrt(jnp.mean(gradient**2)))
    assert traced.gradient["c1"][0, 0] == pytest.approx(expected, rel=1e-4)


def _init_key(seed):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 0), 0)


def test_few_labels_are_as_many_of_each_class():
    labels = np.random.default_rng(0).integers(0, 4, 200)
    chosen = firewall.few_of_each(labels, 12)
    assert len(set(chosen.tolist())) == 48
    for count in (1, 5, 12):
        found = np.bincount(labels[chosen[: 4 * count]], minlength=4)
        np.testing.assert_array_equal(found, count)


def test_targets_are_what_they_are_called(digits):
    images = digits.test_images[:6]
    padded = data.pad(images)
    np.testing.assert_array_equal(firewall.transformed(images, "x to inverted", 0), 255 - padded)
    np.testing.assert_array_equal(firewall.transformed(images, "x to Fashion", 0), padded)
    steps = range(-firewall.SHIFT, firewall.SHIFT + 1)
    for before, after in zip(padded, firewall.transformed(images, "x to shifted", 0), strict=True):
        moves = [pooling.shifted(before[None], down, right) for down in steps for right in steps]
        assert any((move[0] == after).all() for move in moves)
    turned = firewall.transformed(images, "x to rotated", 0)
    assert turned.shape == padded.shape
    assert (turned != padded).any(axis=(1, 2, 3)).all()


def test_a_kernel_slid_by_hand_is_scipys_correlation():
    random = np.random.default_rng(0)
    image, kernel = random.normal(size=(9, 8, 2)), random.normal(size=(5, 5, 2))
    expected = sum(
        scipy.signal.correlate2d(image[..., each], kernel[..., each], "valid") for each in (0, 1)
    )
    np.testing.assert_allclose(kernels.slid(image, kernel, 0.5), expected + 0.5)


def test_the_notes_net_follows_ours_step_by_step():
    state_dict = interop.to_state_dict(model.init_params(LeNet(), jax.random.key(1), pytorch.SHAPE))
    logits, losses = pytorch.our_losses(state_dict)
    expected_logits, expected_losses = pytorch.reference_losses(state_dict)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-5)
    np.testing.assert_allclose(losses, expected_losses, atol=1e-4)
    assert losses[-1] < losses[0] / 1.5


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_pytorch_says_the_same_and_the_notes_example_does_not_run(tmp_path):
    found = pytorch.examine(context(tmp_path))
    assert [finding.verdict for finding in found] == ["supported", "supported", "refuted"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"claims": ("poling",)}, "claims='poling' is not known; choose one of: activations"),
        ({"claims": ()}, "must be a list of"),
        ({"claims": "pooling"}, "must be a list of"),
        ({"claims": ("pooling", "pooling")}, "names a claim twice"),
        ({"quick": 1}, "quick=1 must be True or False"),
        ({"num_epochs": 3}, "'num_epochs' is not a field of a claims config"),
    ],
)
def test_a_claims_config_is_checked_before_any_work(tmp_path, fields, message):
    made = ConfigDict({**claims_config.get_config(), **fields})
    with pytest.raises(ValueError, match=message):
        verdicts.run(made, "claims", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_every_claim_has_a_config_of_its_own():
    assert tuple(CLAIMS) == claims_config.NAMES
    for name in CLAIMS:
        path = verdicts.RESULTS.parent / "configs" / "claims" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.get_config().claims == (name,)


@pytest.mark.parametrize("quick", [True, False])
def test_every_study_is_a_valid_config_and_tests_with_seeds_it_did_not_tune_with(tmp_path, quick):
    for name, claim in CLAIMS.items():
        if name == "heads" and not quick:
            continue  # It asks whether CIFAR-10 can be had.
        for study, config in claim.studies(context(tmp_path, quick)).items():
            plan = sweep.plan(config, study)
            assert plan.final({})


def test_a_report_has_a_section_a_claim_and_says_what_is_not_finished(tmp_path):
    finding = Finding("Water is wet.", "Supported if wet.", rules.SUPPORTED, "It was wet.")
    first, second = (
        Claim(name, name.title(), f"The {name}.", "「水」", "By hand.", lambda context: (finding,))
        for name in ("sea", "river")
    )
    summary = {"command": "", "timing": {"total_seconds": 1.0}}
    drawn = verdicts.sections(context(tmp_path), (first, second), {"sea": (finding,)}, summary)
    assert [section.title for section in drawn] == ["Verdicts", "Sea", "How to make this again"]
    text = json.dumps([str(section) for section in drawn])
    assert "1 of 2 claims" in text
    assert "Its verdicts mean nothing" in text
    assert verdicts.headline({"sea": (finding,)}).endswith("1 supported")


QUICKEST = ("parameters", "choices", "kernels")


@pytest.mark.parametrize(
    "names", [QUICKEST, pytest.param(tuple(CLAIMS), marks=pytest.mark.slow)], ids=("some", "all")
)
def test_claims_run_from_start_to_finish_on_a_subset(names, tmp_path, digits):
    made = claims_config.get_config(names)
    made.quick = True
    summary = verdicts.run(made, "claims", str(tmp_path / "run"), command="python main.py")
    assert [claim["name"] for claim in summary["claims"]] == list(names)
    found = {
        finding["statement"]: finding["verdict"]
        for claim in summary["claims"]
        for finding in claim["findings"]
    }
    assert set(found.values()) <= set(rules.VERDICTS)
    # What is computed, and not estimated, is so however little was trained.
    exact = [
        "Most parameters, 80 % and more, are in fully connected layers.",
        "A kernel slides over the whole image, and what it gives is a feature map.",
    ]
    assert [found[statement] for statement in exact] == [rules.SUPPORTED] * 2
    report = (tmp_path / "run" / "report.md").read_text()
    for name in names:
        assert f"## {CLAIMS[name].title}" in report
        assert CLAIMS[name].original in report
    for figure in (tmp_path / "run" / "figures").glob("*.svg"):
        assert f"figures/{figure.name}" in report
    assert math.isfinite(summary["timing"]["total_seconds"])


def test_every_core_is_made_a_device_before_anything_starts_jax(monkeypatch, tmp_path):
    class ReachedError(Exception):
        pass

    def make_devices(widest):
        assert widest >= 1000
        raise ReachedError

    def start_jax(*_, **__):
        pytest.fail("JAX is used while there is one device")

    monkeypatch.setattr(verdicts.experiment, "use_cores_as_devices", make_devices)
    monkeypatch.setattr(verdicts.processes, "from_primary", start_jax)
    monkeypatch.setattr(verdicts.data, "load", start_jax)
    with pytest.raises(ReachedError):
        verdicts.run(claims_config.get_config(), "claims", str(tmp_path / "run"))
