import dataclasses
import importlib
import json
import pathlib

import pytest
from ml_collections import ConfigDict

from configs import base
from lenet import fields, optimizers, sweep

CONFIGS = sorted(path.stem for path in pathlib.Path(base.__file__).parent.glob("*.py"))


def config(swept=None, variants=None, **fields):
    made = base.get_config()
    made.update(fields)
    made.sweep = ConfigDict(swept or {})
    made.variants = ConfigDict(variants or {})
    return made


def trials_of(made, name="x"):
    return sweep.plan(made, name).final({})


def tuned(**fields):
    swept = {"pooling": ("max", "average"), "learning_rate": (0.1, 0.2), "seed": (0, 1, 2)}
    return config(
        swept,
        **{"tune": ("learning_rate",), "tune_seeds": (7, 8), "validation_examples": 100, **fields},
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_resolves_and_says_how_to_run_it(name):
    module = importlib.import_module(f"configs.{name}")
    if name != "claims":  # A config of many runs, which has tests of its own.
        assert sweep.plan(module.get_config(), name).cells
    assert f"python main.py --config=configs/{name}.py" in module.__doc__


def test_the_base_config_has_exactly_the_known_fields():
    assert set(base.get_config()) == {*fields.FIELDS, *fields.DECLARING, *fields.COMPARING}


def test_without_a_sweep_there_is_one_trial():
    (trial,) = trials_of(config(seed=7), "relu_max")
    assert (trial.id, trial.variant, trial.seed) == ("relu_max/seed=7", "relu_max", 7)
    assert trial.config.activation == "relu"


def test_a_sweep_is_the_product_of_its_values():
    swept = {"activation": ("tanh", "relu"), "learning_rate": [0.1, 1], "seed": (3, 4, 5)}
    trials = trials_of(config(swept))
    assert len(trials) == len({trial.id for trial in trials}) == 12
    assert trials[0].id == "activation=tanh,learning_rate=0.1/seed=3"
    assert trials[-1].overrides == {"activation": "relu", "learning_rate": 1, "seed": 5}
    assert trials[-1].variant == "activation=relu,learning_rate=1"
    assert trials[-1].config.learning_rate == 1


def test_trials_that_differ_in_traced_numbers_make_one_population():
    swept = {"activation": ("tanh", "relu"), "learning_rate": (0.1, 0.2), "seed": (0, 1)}
    groups = sweep.populations(trials_of(config(swept)))
    assert [len(group) for group in groups] == [4, 4]
    assert {trial.fields["activation"] for trial in groups[0]} == {"tanh"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation": "leaky"}, "activation='leaky' is not known; choose one of: relu, tanh"),
        ({"pooling": "median"}, "pooling='median' is not known; choose one of: max, average"),
        ({"connections": "sparse"}, "connections='sparse' is not known; choose one of: full"),
        ({"head": "mlp"}, "head='mlp' is not known; choose one of: dense, gap"),
        ({"optimizer": "lion"}, "optimizer='lion' is not known; choose one of: sgd"),
        ({"schedule": "step"}, "schedule='step' is not known; choose one of: constant"),
        ({"loss": "hinge"}, "loss='hinge' is not known; choose one of: cross_entropy"),
        ({"initialization": "xavier"}, "initialization='xavier' is not known"),
        (
            {"convolution": "fft"},
            "convolution='fft' is not known; choose one of: auto, polyphase, patches, lax",
        ),
        ({"normalization": "zca"}, "normalization='zca' is not known; choose one of"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number, at least 1"),
        ({"num_epochs": -1}, "num_epochs=-1 must be a whole number, at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be a number, at least 0"),
        ({"learning_rate": -0.1}, "learning_rate=-0.1 must be a number, at least 0"),
        ({"momentum": 1.0}, "momentum=1.0 must be a number, at least 0 and below 1"),
        ({"seed": 2**31}, "seed=2147483648 must be a whole number"),
        ({"validation_examples": -5}, "validation_examples=-5 must be a whole number"),
        ({"widths": (6, 16, 120)}, r"widths=\(6, 16, 120\) must be four whole numbers"),
        ({"widths": (6, 16, 120, 0)}, "widths=0 must be a whole number, at least 1"),
        ({"connections": "table1", "widths": (6, 8, 9, 9)}, "from 6 maps to 16, not from 6 to 8"),
    ],
)
def test_a_wrong_value_is_named_with_the_valid_ones(fields, message):
    with pytest.raises(ValueError, match=message):
        sweep.plan(config(**fields), "x")


def test_an_unknown_field_is_named_with_the_valid_ones():
    made = base.get_config()
    made.activaton = "tanh"
    with pytest.raises(ValueError, match="did you mean 'activation'") as raised:
        sweep.plan(made, "x")
    assert all(field in str(raised.value) for field in fields.FIELDS)


def test_a_missing_field_is_named():
    made = base.get_config()
    del made.pooling
    with pytest.raises(ValueError, match="lacks the field 'pooling'"):
        sweep.plan(made, "x")


@pytest.mark.parametrize(
    ("swept", "message"),
    [
        ({"activaton": ("tanh",)}, "sweep.activaton is not a field that can be swept"),
        ({"validation_examples": (0, 100)}, "sweep.validation_examples is not a field that can be"),
        ({"dataset": ("mnist", "kmnist")}, "sweep.dataset is not a field that can be swept"),
        ({"seed": ()}, r"sweep.seed=\(\) must be a list of one or more values"),
        ({"seed": 3}, "sweep.seed=3 must be a list of one or more values"),
        ({"activation": "tanh"}, "sweep.activation='tanh' must be a list"),
        ({"seed": (1, 1)}, "names a value twice"),
        ({"seed": (0, "1")}, "sweep.seed='1' must be a whole number"),
        ({"activation": ("relu", "leaky")}, "sweep.activation='leaky' is not known"),
    ],
)
def test_a_wrong_sweep_is_refused(swept, message):
    with pytest.raises(ValueError, match=message):
        sweep.plan(config(swept), "x")


def test_variants_are_crossed_with_the_sweep():
    variants = {"paper": {"activation": "scaled_tanh", "pooling": "subsampling"}, "now": {}}
    trials = trials_of(config({"seed": (0, 1), "batch_size": (8, 16)}, variants))
    assert len(trials) == 8
    by_id = {trial.id: trial for trial in trials}
    assert by_id["paper,batch_size=8/seed=0"].fields["pooling"] == "subsampling"
    assert by_id["now,batch_size=16/seed=1"].fields["pooling"] == "max"


def declared(*fields):
    made = base.get_config()
    for name in ("z", "a"):
        made.variants[name] = {}
    for field in fields:
        made.sweep[field] = {"pooling": ("max", "average"), "head": ("gap", "dense")}[field]
    return sweep.plan(made, "x")


def test_variants_and_swept_fields_come_in_the_order_they_are_declared():
    variants = [cell.variant for cell in declared("pooling", "head").cells]
    assert variants == [
        "z,head=gap,pooling=max",
        "z,head=dense,pooling=max",
        "z,head=gap,pooling=average",
        "z,head=dense,pooling=average",
        *(name.replace("z,", "a,") for name in variants[:4]),
    ]
    assert list(declared("pooling", "head").final({})[0].overrides) == ["pooling", "head", "seed"]


def test_what_is_declared_in_another_order_is_the_same_run():
    assert sweep.extends(declared("pooling", "head"), declared("head", "pooling"))


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"a": {"activaton": "tanh"}}, "variants.a.activaton is not a field that can be swept"),
        ({"a": {"activation": "leaky"}}, "variants.a.activation='leaky' is not known"),
        ({"a": {"batch_size": 4}}, "variants.a.batch_size: batch_size is swept as well"),
        ({"a": {"seed": 4}}, "seeds are swept, with sweep.seed"),
        ({"a": "tanh"}, "variants.a='tanh' must map fields to values"),
    ],
)
def test_a_wrong_variant_is_refused(variants, message):
    with pytest.raises(ValueError, match=message):
        sweep.plan(config({"batch_size": (8, 16)}, variants), "x")


def test_what_is_tuned_is_tried_on_other_seeds_with_images_held_out():
    plan = sweep.plan(tuned(), "x")
    assert len(plan.tuning) == 2 * 2 * 2
    assert {trial.seed for trial in plan.tuning} == {7, 8}
    assert {trial.fields["validation_examples"] for trial in plan.tuning} == {100}
    final = plan.final({"pooling=max": {"learning_rate": 0.2}})
    assert [trial.id for trial in final[:3]] == [f"pooling=max/seed={seed}" for seed in range(3)]
    assert final[0].fields["learning_rate"] == 0.2
    assert {trial.fields["validation_examples"] for trial in final} == {0}
    assert not {trial.id for trial in final} & {trial.id for trial in plan.tuning}


def test_the_least_mean_validation_error_is_chosen_and_divergence_counts_as_all_wrong():
    plan = sweep.plan(tuned(), "x")
    errors = {trial.id: 0.05 for trial in plan.tuning}
    for trial in plan.tuning:
        if trial.tuned["learning_rate"] == 0.2:
            errors[trial.id] = 0.01
    lucky = next(t for t in plan.tuning if t.variant == "pooling=average" and t.seed == 7)
    lost = next(
        t for t in plan.tuning if t.variant == "pooling=average" and t.tuned["learning_rate"] == 0.2
    )
    errors[lucky.id], errors[lost.id] = 0.0, None
    assert sweep.choose(plan.tuning, errors) == {
        "pooling=max": {"learning_rate": 0.2},
        "pooling=average": {"learning_rate": 0.1},
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tune": ("momentum",)}, "tune='momentum' is not swept; the sweep has: learning_rate"),
        ({"tune": ("seed",)}, "tune='seed' is not swept"),
        ({"tune_seeds": ()}, r"tune_seeds=\(\) must be a list of one or more seeds"),
        ({"tune_seeds": (2, 9)}, r"share \[2\]; what is chosen with a seed must be tested"),
        ({"validation_examples": 0}, "set validation_examples"),
    ],
)
def test_a_wrong_tuning_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        sweep.plan(tuned(**fields), "x")


def own_values(**variants):
    return config(
        {"seed": (0, 1)},
        variants or {"adam": {"learning_rate": (0.1, 0.2)}, "sgd": {"learning_rate": (1, 2, 3)}},
        tune=("learning_rate",),
        tune_seeds=(7,),
        validation_examples=100,
    )


def tried(plan):
    found = {}
    for trial in plan.tuning:
        found.setdefault(trial.variant, []).append(tuple(trial.tuned.values()))
    return found


def test_a_variant_chooses_from_values_of_its_own():
    plan = sweep.plan(own_values(), "x")
    assert tried(plan) == {"adam": [(0.1,), (0.2,)], "sgd": [(1,), (2,), (3,)]}
    assert {trial.id for trial in plan.tuning if trial.variant == "adam"} == {
        "tune/adam,learning_rate=0.1/seed=7",
        "tune/adam,learning_rate=0.2/seed=7",
    }
    errors = {trial.id: trial.tuned["learning_rate"] / 10 for trial in plan.tuning}
    chosen = sweep.choose(plan.tuning, errors)
    assert chosen == {"adam": {"learning_rate": 0.1}, "sgd": {"learning_rate": 1}}
    assert [trial.fields["learning_rate"] for trial in plan.final(chosen)] == [0.1, 0.1, 1, 1]
    assert [trial.id for trial in plan.final(chosen)][:2] == ["adam/seed=0", "adam/seed=1"]


def test_a_variants_own_values_replace_those_of_the_sweep_and_are_no_factor():
    made = own_values(adam={"learning_rate": (0.1, 0.2)}, sgd={"optimizer": "sgd"})
    made.sweep.learning_rate = (1, 2, 3)
    made.sweep.pooling = ("max", "average")
    plan = sweep.plan(made, "x")
    assert tried(plan) == {
        "adam,pooling=max": [(0.1,), (0.2,)],
        "adam,pooling=average": [(0.1,), (0.2,)],
        "sgd,pooling=max": [(1,), (2,), (3,)],
        "sgd,pooling=average": [(1,), (2,), (3,)],
    }
    assert plan.final({})[0].overrides == {"pooling": "max", "seed": 0}


@pytest.mark.parametrize("one", [0.5, (0.5,)])
def test_what_has_one_value_has_nothing_to_choose_and_is_not_trained_for_it(one):
    plan = sweep.plan(own_values(a={"learning_rate": one}, b={"learning_rate": (1, 2)}), "x")
    assert set(tried(plan)) == {"b"}
    first = plan.final({"b": {"learning_rate": 2}})[0]
    assert (first.fields["learning_rate"], first.tuned) == (0.5, {"learning_rate": 0.5})
    # It is trained on as many images as those that had a choice.
    assert first.fields["validation_examples"] == 0
    alone = sweep.plan(own_values(a={"learning_rate": one}), "x")
    assert not alone.tuning
    assert alone.final({})[0].fields["validation_examples"] == 0


def test_of_two_tuned_fields_a_variant_may_give_one():
    made = own_values(a={"learning_rate": 0.5, "momentum": (0.8, 0.9)}, b={"momentum": 0.7})
    made.tune = ("learning_rate", "momentum")
    made.sweep.learning_rate = (1, 2)
    assert tried(sweep.plan(made, "x")) == {
        "a": [(0.5, 0.8), (0.5, 0.9)],
        "b": [(1, 0.7), (2, 0.7)],
    }


def test_one_value_of_the_widths_is_a_tuple_and_several_are_tuples_of_them():
    one, other = (6, 16, 120, 84), (12, 32, 120, 84)
    made = own_values(a={"widths": one}, b={"widths": [list(one), other]})
    made.tune = ("widths",)
    plan = sweep.plan(made, "x")
    assert tried(plan) == {"b": [(one,), (other,)]}
    assert plan.final({"b": {"widths": other}})[0].fields["widths"] == one


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (
            {"a": {"learning_rate": (0.1, 0.2)}, "b": {"optimizer": "sgd"}},
            "variants.b lacks values of learning_rate, which tune names and the sweep has not; "
            "give it variants.b.learning_rate, or all variants sweep.learning_rate",
        ),
        ({"a": {"learning_rate": ()}}, r"variants.a.learning_rate=\(\) must be a list of one or"),
        (
            {"a": {"learning_rate": (1, 1)}},
            r"variants.a.learning_rate=\(1, 1\) names a value twice",
        ),
        ({"a": {"learning_rate": (1, -1)}}, "variants.a.learning_rate=-1 must be a number"),
        (
            {"a": {"learning_rate": 1, "momentum": (0.8, 0.9)}},
            r"variants.a.momentum=\(0.8, 0.9\) has several values; to choose one of them, name "
            "momentum in tune",
        ),
        (
            {"a": {"learning_rate": 1, "widths": (6, 16)}},
            r"variants.a.widths=\(6, 16\) must be four",
        ),
    ],
)
def test_wrong_values_of_a_variants_own_are_refused(variants, message):
    with pytest.raises(ValueError, match=message):
        sweep.plan(own_values(**variants), "x")


def test_a_plan_with_values_of_its_variants_own_can_be_extended():
    variants = {"a": {"learning_rate": (0.1, 0.2)}, "b": {"learning_rate": 0.5}}

    def plan(seeds=(0, 1), **changed):
        made = own_values(**{**variants, **changed})
        made.sweep.seed = seeds
        return sweep.plan(ConfigDict(json.loads(made.to_json())), "x")

    assert sweep.extends(plan(), plan((0, 1, 2)))
    assert sweep.extends(plan(), plan(c={"learning_rate": (0.3, 0.4)}))
    assert not sweep.extends(plan(), plan(a={"learning_rate": (0.1, 0.3)}))
    assert not sweep.extends(plan(), plan(b={"learning_rate": (0.5, 0.6)}))


def compared(path=(), **references):
    made = config({"seed": (0, 1)}, {"a": {}, "b": {"head": "gap"}, "c": {"pooling": "average"}})
    made.path = path
    made.references = references
    return made


def test_a_path_and_references_name_variants():
    plan = sweep.plan(compared(("a", "c"), b=["a", "c"]), "x")
    assert plan.path == ("a", "c")
    assert plan.references == {"b": ("a", "c")}
    swept = config({"pooling": ("max", "average")}, path=("pooling=average", "pooling=max"))
    assert sweep.plan(swept, "x").path == ("pooling=average", "pooling=max")


@pytest.mark.parametrize(
    ("path", "references", "message"),
    [
        (
            ("a", "bb"),
            {},
            r"path names 'bb', which is no variant \(did you mean 'b'\?\); there are: a",
        ),
        (("a",), {}, r"path=\('a',\) must be a list of two or more variants"),
        ("ab", {}, "path='ab' must be a list of two or more variants"),
        (("a", "b", "a"), {}, r"path=\('a', 'b', 'a'\) names a variant twice"),
        ((), {"d": ("a",)}, "references names 'd', which is no variant; there are: a, b, c"),
        ((), {"a": ("d",)}, "references.a names 'd', which is no variant"),
        ((), {"a": ()}, r"references.a=\(\) must be a list of one or more variants"),
        ((), {"a": ("b", "a")}, "references.a compares 'a' with itself"),
    ],
)
def test_what_cannot_be_compared_is_refused(path, references, message):
    made = compared(**references)
    with made.ignore_type():
        made.path = path
    with pytest.raises(ValueError, match=message):
        sweep.plan(made, "x")


def test_comparisons_may_be_added_to_a_run_even_one_without_the_fields():
    held = compared()
    del held.path, held.references
    assert sweep.extends(sweep.plan(held, "x"), sweep.plan(compared(("a", "c"), b=("a",)), "x"))


def test_populations_that_were_begun_stay_and_only_new_trials_are_grouped():
    before = trials_of(config({"seed": (0, 1)}))
    known = [[trial.id for trial in group] for group in sweep.populations(before)]
    after = trials_of(config({"seed": (0, 1, 2, 3)}))
    groups = sweep.populations(after, known)
    assert [[trial.seed for trial in group] for group in groups] == [[0, 1], [2, 3]]


def test_only_added_trials_extend_a_plan():
    def plan(**changes):
        return sweep.plan(config({"seed": changes.pop("seed", (0, 1))}, **changes), "x")

    assert sweep.extends(plan(), plan(seed=(0, 1, 2)))
    assert not sweep.extends(plan(), plan(seed=(0, 2)))
    assert not sweep.extends(plan(), plan(seed=(0, 1, 2), batch_size=3))
    assert sweep.extends(
        plan(variants={"a": {"head": "gap"}}),
        plan(variants={"a": {"head": "gap"}, "b": {"head": "dense"}}),
    )


def test_what_is_traced_are_the_seed_and_the_numbers_of_a_training():
    numbers = {field.name for field in dataclasses.fields(optimizers.Hyperparameters)}
    assert set(fields.TRACED) == {"seed", *numbers}


@pytest.mark.parametrize("loss", ["rbf_mse", "rbf_map"])
def test_a_loss_of_distances_needs_the_head_that_gives_them(loss):
    with pytest.raises(ValueError, match=f"loss='{loss}' is of distances to codes"):
        sweep.plan(config(loss=loss), "x")
    assert sweep.plan(config(loss=loss, head="rbf"), "x").cells


def test_the_codes_need_84_units():
    with pytest.raises(ValueError, match="end widths with 84"):
        sweep.plan(config(head="rbf", widths=(6, 16, 120, 80)), "x")
