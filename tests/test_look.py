import dataclasses
import html
import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fakes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image

from lenet import checkpoints, data, figures, formats, look
from lenet.model import LeNet, init_params
from lenet.templates import document
from lenet.templates.look import sections

ROOT = Path(__file__).parents[1]
SMALL = (2, 3, 7, 5)
# Side of the square that a unit sees, by the geometry of figure 2 of the paper.
SIDES = {"c1": 5, "s2": 6, "c3": 14, "s4": 16}
PAPER = {
    "activation": "scaled_tanh",
    "pooling": "subsampling",
    "connections": "table1",
    "head": "rbf",
    "widths": (6, 16, 120, 84),
}
FIELDS = {
    "activation": "tanh",
    "pooling": "average",
    "connections": "full",
    "head": "dense",
    "widths": SMALL,
    "initialization": "lecun_normal",
    "convolution": "auto",
    "normalization": "unit",
    "dataset": "tiny",
}


def make_workdir(folder, *, channels=1, seeds=(0,), change=lambda params: params, **fields):
    """A workdir as a training leaves it, its network untrained, and 40 test images beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = (28, 28) if channels == 1 else (28, 28, channels)
    images = folder / "tiny.npz"
    np.savez(images, **fakes.arrays(train=12, test=40, shape=shape, classes=10))
    fields = {**FIELDS, "data_dir": str(images), **fields}
    described = {
        "name": "tiny",
        "sha256": data.load("tiny", str(images)).sha256,
        "class_names": [f"class {index}" for index in range(10)],
        "native_shape": [28, 28, channels],
        "image_shape": [32, 32, channels],
        "normalization": {"scale": [1 / 255] * channels, "offset": [-0.1] * channels},
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    choices = {name: value for name, value in fields.items() if name in LeNet.__dataclass_fields__}
    members = [
        change(init_params(LeNet(**choices), jax.random.key(seed), (32, 32, channels)))
        for seed in seeds
    ]
    trials = [{"id": f"x/seed={seed}", "fields": {**fields, "seed": seed}} for seed in seeds]
    with checkpoints.manager(folder / "checkpoints" / "population-0", 1) as opened:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        record = {"step": 1, "epoch": 1, "train_seconds": 1.0, "trials": trials}
        checkpoints.save(opened, 1, {"state": {"params": stacked}}, record)
    return folder


def network_of(folder, **options):
    return checkpoints.load_trained(str(make_workdir(folder, **options)))


def noise(channels=1, side=28, seed=0):
    return np.random.default_rng(seed).integers(0, 200, (side, side, channels), np.uint8)


def padded(channels=1, seed=0):
    return data.pad(noise(channels, seed=seed)[None])[0]


def save(path, pixels):
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)
    return str(path)


def page_of(*looks):
    return document.to_html("T", sections(looks))


def look_at(network, label="net", channels=1):
    return look.look(network, padded(channels), label)


def command_line(monkeypatch, capsys, *paths, **given):
    values = {"workdir": [], "trial": None, "out": None, "invert": False, "fit": False}
    monkeypatch.setattr(look.flags, "FLAGS", SimpleNamespace(**{**values, **given}))
    try:
        look.main(["look", *map(str, paths)])
        status = 0
    except SystemExit as stopped:
        status = 1
        print(stopped.code, file=sys.stderr)
    return status, *capsys.readouterr()


def fields_of(network, picture):
    return {field.layer: field for field in look.receptive_fields(network, picture)}


def unit_of(network, picture, layer, place):
    """One unit by the network's forward pass alone."""
    pixels = jnp.asarray(picture[None] / 255 - 0.1, jnp.float32)
    return float(look.activations(network.model, network.params, pixels)[layer][(*place, 0)])


class Page(html.parser.HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.elements = []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    return network_of(tmp_path_factory.mktemp("paper"), **PAPER)


@pytest.fixture(scope="module")
def paper_look(paper):
    return look_at(paper, "net 0")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return network_of(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def small_look(small):
    return look_at(small, "net 1")


@pytest.fixture(scope="module")
def page(paper_look, small_look):
    return page_of(paper_look, small_look)


@pytest.fixture(scope="module")
def small_page(small_look):
    return page_of(small_look)


def test_page_of_two_networks_is_one_file_that_needs_nothing_else(page):
    elements = Page(page).elements
    assert not {tag for tag, _ in elements} & {"script", "link", "iframe", "img", "object"}
    for _, attributes in elements:
        for name, value in attributes.items():
            if name.split(":")[-1] in ("href", "src"):
                assert value.startswith(("#", "data:image/png;base64,"))
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    addresses = re.findall(r"\w+://[^\"<\s]+", page)
    assert set(addresses) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    identities = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(identities) == len(set(identities))


def test_networks_stand_side_by_side_in_every_section(page):
    rows = re.findall(r'<div class="row">(.*?)</div>\n', page, re.DOTALL)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "The picture and its class",
        "Kernels",
        "Feature maps",
        "Receptive fields",
        "What excites f6",
    ]
    assert len(rows) == 6
    for row in rows:
        assert row.count("<figure") == 2
        assert row.index("net 0") < row.index("net 1")


def assert_inside_its_square(field):
    top, left, side = field.square
    assert side == SIDES[field.layer]
    assert 0 <= top <= 32 - side
    assert 0 <= left <= 32 - side
    outside = field.effective.copy()
    outside[top : top + side, left : left + side] = 0
    assert field.effective.any()
    assert not outside.any()


@pytest.mark.parametrize(
    "fields",
    [
        {"activation": "relu", "pooling": "max"},
        {"activation": "gelu", "pooling": "max", "head": "gap"},
        {"activation": "sigmoid", "pooling": "stride"},
    ],
    ids=["relu max", "gelu max gap", "sigmoid stride"],
)
def test_effective_field_lies_inside_the_square_that_the_layer_sees(tmp_path, fields):
    found = fields_of(network_of(tmp_path, **fields), padded())
    assert list(found) == ["c1", "s2", "c3", "s4"]
    for field in found.values():
        assert_inside_its_square(field)


def test_without_max_pooling_and_relu_it_fills_the_square(paper_look):
    assert len(paper_look.fields) == 4
    for field in paper_look.fields:
        assert_inside_its_square(field)
        assert np.count_nonzero(field.effective) == SIDES[field.layer] ** 2


def test_max_pooling_depends_on_the_kernel_under_the_greatest_of_four(tmp_path):
    network = network_of(tmp_path, activation="tanh", pooling="max")
    assert np.count_nonzero(fields_of(network, padded())["s2"].effective) == 25


def test_effective_field_is_what_changing_a_pixel_changes(tmp_path):
    network = network_of(tmp_path, activation="identity", channels=3)
    picture = padded(3)
    for layer, field in fields_of(network, picture).items():
        top, left, _ = field.square
        changes = []
        for channel in range(3):
            other = picture.astype(np.int32)
            other[top + 1, left + 2, channel] += 255  # 1 after the normalisation
            before, after = (unit_of(network, x, layer, field.unit) for x in (picture, other))
            changes.append(abs(after - before))
        assert field.effective[top + 1, left + 2] == pytest.approx(sum(changes), rel=1e-2)


def test_without_pooling_the_kernels_alone_widen_the_field(tmp_path):
    network = network_of(tmp_path, pooling="none", head="gap")
    drawn = look_at(network)
    assert list(drawn.maps) == ["c1", "c3", "output"]
    assert {field.layer: field.square[2] for field in drawn.fields} == {"c1": 5, "c3": 9}
    for field in drawn.fields:
        top, left, side = field.square
        assert np.count_nonzero(field.effective[top : top + side, left : left + side]) == side**2
        assert np.count_nonzero(field.effective) == side**2
    assert "Receptive fields" in page_of(drawn)


def with_bias(params, bias):
    """Kernels of c1 that are all 1, and its bias."""
    flat = traverse_util.flatten_dict(params)
    flat["c1", "kernel"] = jnp.ones_like(flat["c1", "kernel"])
    flat["c1", "bias"] = jnp.full_like(flat["c1", "bias"], bias)
    return traverse_util.unflatten_dict(flat)


def test_where_units_in_the_middle_are_off_one_nearby_is_taken(tmp_path):
    # 25 pixels of -0.1 and one of 0.9 make -1.5, so that units that see the bright one are on.
    network = network_of(tmp_path, activation="relu", change=lambda x: with_bias(x, 2.0))
    picture = np.zeros((32, 32, 1), np.uint8)
    picture[20, 22] = 255
    field = fields_of(network, picture)["c1"]
    top, left, side = field.square
    assert field.unit[1:] == (top, left)
    assert 16 <= top <= 20
    assert 18 <= left <= 22
    # The middle of 28x28 units is (14, 14); of those that see (20, 22) this is the nearest.
    assert (top, left) == (16, 18)
    assert side == 5


def test_a_layer_that_is_off_everywhere_is_drawn_blank(tmp_path):
    network = network_of(tmp_path, activation="relu", change=lambda x: with_bias(x, -1000.0))
    drawn = look_at(network)
    assert drawn.fields[0].unit == (0, 14, 14)
    assert not any(field.effective.any() for field in drawn.fields)
    assert not drawn.excited.responding.any()
    source = page_of(drawn)
    assert "0 of 25 in c1" in source
    assert "Units to which all images are the same: 5 of 5." in source
    assert source.count(">no response<") == 5


def test_layers_after_the_maps_are_products_of_the_stored_weights(small, small_look):
    drawn = small_look
    shapes = {name: values.shape for name, values in drawn.maps.items()}
    assert shapes == {
        "c1": (2, 28, 28),
        "s2": (2, 14, 14),
        "c3": (3, 10, 10),
        "s4": (3, 5, 5),
        "c5": (7,),
        "f6": (5,),
        "output": (10,),
    }
    for before, after in (("s4", "c5"), ("c5", "f6")):
        weights = {name: np.asarray(leaf) for name, leaf in small.params[after].items()}
        expected = np.tanh(drawn.maps[before].reshape(-1) @ weights["kernel"] + weights["bias"])
        np.testing.assert_allclose(drawn.maps[after], expected, rtol=1e-4, atol=1e-5)
    kernel, bias = (np.asarray(small.params["c1"][name]) for name in ("kernel", "bias"))
    pixels = padded()[..., 0] / 255 - 0.1
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (5, 5))
    expected = np.tanh(np.einsum("rcij,ijm->mrc", windows, kernel[:, :, 0]) + bias[:, None, None])
    np.testing.assert_allclose(drawn.maps["c1"], expected, rtol=1e-4, atol=1e-5)


def test_the_unit_worked_out_is_the_sum_of_products_and_bias(small, small_look, small_page):
    caption = re.search(
        r"greatest unit of c1, map (\d+), row (\d+), column (\d+): "
        r"the products sum to (\S+); \S+ ([-+]) (\S+) \(bias\) = (\S+), "
        r"and after tanh the unit is (\S+)\.<",
        small_page,
    )
    of, row, column = map(int, caption.groups()[:3])
    assert small_look.maps["c1"][of, row, column] == small_look.maps["c1"].max()
    total, result, unit = (float(caption[index]) for index in (4, 7, 8))
    bias = float(f"{caption[5]}{caption[6]}")
    pixels = padded()[row : row + 5, column : column + 5] / 255 - 0.1
    kernel = np.asarray(small.params["c1"]["kernel"])[..., of]
    assert total == pytest.approx((pixels * kernel).sum(), abs=6e-4)
    assert bias == pytest.approx(float(small.params["c1"]["bias"][of]), abs=6e-4)
    assert result == pytest.approx(total + bias, abs=1.1e-3)
    assert unit == pytest.approx(np.tanh(result), abs=1.1e-3)


def test_there_is_a_kernel_for_each_connection_of_table_1(page):
    assert len(set(re.findall(r'id="kernels_0-c3-\d+-\d+"', page))) == 60
    assert len(set(re.findall(r'id="kernels_0-c1-\d+"', page))) == 6
    assert "c1: 6 kernels, 156 parameters" in page
    assert "c3: 60 kernels, 1,516 parameters" in page


def test_the_most_exciting_images_are_those_of_brute_force(paper):
    images = data.load_test_images(paper.config, paper.dataset)
    assert images.shape == (40, 28, 28, 1)
    found = look.most_exciting(paper, images)
    responses = []
    for image in images:
        pixels = np.pad(image / 255, ((2, 2), (2, 2), (0, 0))) - 0.1
        batch = jnp.asarray(pixels[None], jnp.float32)
        (f6,) = paper.model.apply({"params": paper.params}, batch, trained_part=True)
        responses.append(np.asarray(f6))
    assert found.images.shape == (84, 4, 28, 28, 1)
    assert found.responding.all()
    assert found.count == 40
    for unit in range(84):
        order = sorted(range(40), key=lambda index: -responses[index][unit])
        np.testing.assert_array_equal(found.images[unit], images[order[:4]])


def test_images_are_ranked_the_same_however_many_are_sent_at_once(small, monkeypatch):
    images = data.load_test_images(small.config, small.dataset)
    whole = look.most_exciting(small, images)
    monkeypatch.setattr(look, "BATCH", 16)
    np.testing.assert_array_equal(look.most_exciting(small, images).images, whole.images)


def test_of_fewer_test_images_than_are_shown_all_are(small):
    images = data.load_test_images(small.config, small.dataset)[:2]
    found = look.most_exciting(small, images)
    assert found.images.shape == (5, 2, 28, 28, 1)
    assert figures.to_svg(figures.excited(found.images, found.responding, title="T"))


def test_without_the_data_set_the_page_says_so(tmp_path):
    folder = make_workdir(tmp_path)
    (tmp_path / "tiny.npz").unlink()
    source = page_of(look_at(checkpoints.load_trained(str(folder))))
    assert "What excites f6 is not drawn.</strong> The data set could not be loaded" in source
    assert "unit-0" not in source
    assert "Receptive fields" in source


def test_images_of_another_set_are_not_taken_for_those_of_the_run(tmp_path):
    folder = make_workdir(tmp_path)
    np.savez(tmp_path / "tiny.npz", **fakes.arrays(test=5, shape=(28, 28), classes=3))
    source = page_of(look_at(checkpoints.load_trained(str(folder))))
    assert "What is loaded for tiny now is not what the run used" in source
    assert "unit-0" not in source


def test_a_network_with_global_average_pooling_has_no_f6(tmp_path, small_look):
    drawn = look_at(network_of(tmp_path, head="gap"))
    beside = page_of(drawn, small_look)
    assert "What excites f6" not in page_of(drawn)
    assert list(drawn.maps) == ["c1", "s2", "c3", "s4", "output"]
    assert 'id="excited_1-' in beside
    assert 'id="excited_0-' not in beside


def test_layers_after_f6_are_shown_too(tmp_path):
    drawn = look_at(network_of(tmp_path, extra_layers=2))
    assert list(drawn.maps) == ["c1", "s2", "c3", "s4", "c5", "f6", "f7", "f8", "output"]
    assert 'id="maps_0-f8-0"' in page_of(drawn)


def test_pictures_of_three_channels_stay_in_colour_on_a_dark_page(tmp_path, small_page):
    source = page_of(look_at(network_of(tmp_path, channels=3), channels=3))
    assert '<figure class="paper"' not in source
    assert "Kernels on three colours are shown in these colours" in source
    assert '<figure class="paper"' in small_page
    for channel in range(3):
        assert f'id="unit_0-products-{channel}"' in source


def test_of_wide_layers_the_first_maps_are_drawn_and_that_is_said(tmp_path):
    source = page_of(look_at(network_of(tmp_path, widths=(2, 65, 12, 127))))
    assert len(set(re.findall(r'id="kernels_0-c3-\d+-\d+"', source))) == 2 * 32
    assert len(set(re.findall(r'id="maps_0-c3-\d+"', source))) == 64
    assert len(set(re.findall(r'id="excited_0-unit-\d+"', source))) == 126
    for said in ("more than 32 maps", "more than 64 maps", "The first 126 of 127 units"):
        assert said in source


def test_probabilities_are_drawn_as_bars_of_the_most_probable_classes():
    chances = np.full(12, 0.02)
    chances[[3, 7]] = 0.5, 0.3
    names = [f"class {index}" for index in range(12)]
    svg = figures.to_svg(figures.prediction(padded(), chances, names, title="T"))
    shown = re.findall(r">(class \d+|[\d.]+ %)</text>", svg)
    assert len(shown) == 20
    assert [shown[shown.index("class 3") + 1], shown[shown.index("class 7") + 1]] == [
        "50.0 %",
        "30.0 %",
    ]
    assert "class 10" not in shown


@pytest.mark.parametrize("name", ["$a$_$b$", "<b>&", "x" * 200])
def test_names_are_drawn_as_they_are(small_look, name):
    drawn = dataclasses.replace(small_look, label=name, class_names=[name] * 10)
    source = document.to_html(name, sections([drawn]))
    assert html.escape(name[:12]) in source
    assert "<b>&" not in source


def test_the_same_network_and_picture_give_the_same_bytes(small, small_page):
    assert page_of(look_at(small, "net 1")) == small_page


def test_colours_can_be_exchanged_on_a_dark_page(small_look):
    for each in document.plots(sections([small_look])):
        assert set(re.findall(r"#[0-9a-f]{6}\b", each.svg)) <= set(figures.PALETTE.values())


def test_command_writes_the_page_into_the_first_workdir(tmp_path, monkeypatch, capsys):
    first = make_workdir(tmp_path / "first", head="gap")
    second = make_workdir(tmp_path / "second", head="gap", seeds=(5,))
    picture = save(tmp_path / "digit.png", noise())
    workdirs = [str(first), str(second)]
    status, out, error = command_line(monkeypatch, capsys, picture, workdir=workdirs)
    assert (status, error) == (0, "")
    path, *answers = out.splitlines()
    assert path == str(first / "look.html")
    source = (first / "look.html").read_text()
    assert "<h1>digit.png, looked at by first: x and second: x</h1>" in source
    assert [line.split("  ")[0] for line in answers] == ["first: x", "second: x"]
    for line in answers:
        name, probability = re.search(r"(class \d)  (0\.\d{4})$", line).groups()
        assert f"{name}</td><td" in source
        assert probability in source
    assert not (second / "look.html").exists()


def test_trials_of_one_workdir_are_compared(tmp_path, monkeypatch, capsys):
    folder = make_workdir(tmp_path / "run", head="gap", seeds=(0, 1))
    picture = save(tmp_path / "digit.png", noise())
    out = tmp_path / "pages" / "a.html"
    trials = ["x/seed=0", "x/seed=1"]
    status, printed, _ = command_line(
        monkeypatch, capsys, picture, workdir=[str(folder)], trial=trials, out=str(out)
    )
    assert status == 0
    assert printed.splitlines()[0] == str(out)
    assert [line.split("  ")[0] for line in printed.splitlines()[1:]] == [
        "x/seed=0",
        "x/seed=1",
    ]
    assert out.read_text().count("<h2>") == 4
    assert not (folder / "look.html").exists()


def test_workdirs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    folders = [str(make_workdir(tmp_path / parent / "run")) for parent in ("a", "b")]
    assert [name for name, _ in look.load(folders, [])] == [f"{each}: x" for each in folders]


def test_a_workdir_named_for_its_variant_needs_no_other_name(tmp_path):
    folder = str(make_workdir(tmp_path / "x"))
    assert [name for name, _ in look.load([folder], [])] == ["x"]


def test_a_picture_of_any_size_can_be_fitted_and_turned(tmp_path, monkeypatch, capsys):
    folder = make_workdir(tmp_path / "run", head="gap")
    pixels = np.full((90, 60), 255, np.uint8)
    pixels[20:70, 25:35] = 0
    picture = save(tmp_path / "digit.png", pixels[..., None])
    given = {"workdir": [str(folder)], "fit": True}
    status, _, error = command_line(monkeypatch, capsys, picture, **given)
    assert (status, error.count("\n")) == (0, 1)
    assert "looks dark on light" in error
    status, _, error = command_line(monkeypatch, capsys, picture, invert=True, **given)
    assert (status, error) == (0, "")


def test_what_cannot_be_looked_at_is_named_in_one_line(tmp_path, monkeypatch, capsys):
    folder = str(make_workdir(tmp_path / "run", head="gap"))
    picture = save(tmp_path / "digit.png", noise())
    large = save(tmp_path / "large.png", noise(side=40))
    broken, absent = tmp_path / "broken.png", tmp_path / "absent.png"
    broken.write_bytes(Path(picture).read_bytes()[:60])
    several = tmp_path / "two.idx"
    several.write_bytes(formats.to_idx(np.zeros((2, 28, 28), np.uint8)))
    diverged = str(
        make_workdir(
            tmp_path / "diverged",
            head="gap",
            change=lambda x: jax.tree.map(lambda y: y * np.nan, x),
        )
    )
    one = {"workdir": [folder]}
    for paths, given, problem in (
        ([picture], {}, "--workdir is missing"),
        ([picture], {"workdir": [folder, str(tmp_path / "none")]}, "none holds no run"),
        ([picture], {**one, "trial": ["y"]}, "has no trial 'y'; it has: x/seed=0"),
        ([picture], {"workdir": [folder] * 3, "trial": ["a", "b"]}, "2 times --trial for 3"),
        ([picture], {"workdir": [diverged]}, "has diverged"),
        ([], one, "one picture is looked at, and 0 are named"),
        ([picture, picture], one, "one picture is looked at, and 2 are named"),
        ([several], one, "two.idx has 2"),
        ([broken], one, "broken.png is broken"),
        ([absent], one, "absent.png does not exist"),
        ([large], one, "is 40 high and 40 wide, but the network takes 28x28 or 32x32; --fit"),
        ([picture], {**one, "out": str(tmp_path)}, str(tmp_path)),
    ):
        status, out, error = command_line(monkeypatch, capsys, *paths, **given)
        assert (status, out) == (1, "")
        assert problem in error
        assert error.count("\n") == 1
    assert not list(tmp_path.rglob("look.html"))


def test_command_line_is_read_and_its_error_is_one_line(tmp_path):
    picture = save(tmp_path / "a.png", noise())
    command = [sys.executable, "-m", "lenet.look", f"--workdir={tmp_path}", "--workdir=b", picture]
    command += ["--trial=x", "--trial=y", "--out=o.html", "--fit", "--invert"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert f"{tmp_path} holds no run" in done.stderr
