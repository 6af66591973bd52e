import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from lenet import codes, model
from lenet.model import LeNet


def test_the_codes_lie_as_far_apart_as_those_of_the_figure():
    flat = codes.BITMAPS.reshape(10, -1)
    assert flat.shape == (10, 84)
    assert set(np.unique(flat)) == {-1.0, 1.0}
    # Counted on figure 3 of the paper: 4 for each pixel that two characters do not share.
    distances = {
        pair: ((flat[pair[0]] - flat[pair[1]]) ** 2).sum()
        for pair in itertools.combinations(range(10), 2)
    }
    assert min(distances.items(), key=lambda item: item[1]) == ((6, 8), 48)
    assert max(distances.values()) == 200
    assert np.mean([*distances.values()]) == pytest.approx(124.4, abs=0.05)


def test_the_one_is_drawn_as_in_the_figure():
    drawn = ["".join("#" if pixel > 0 else "." for pixel in row) for row in codes.BITMAPS[1]]
    assert drawn == ["...##..", "..###..", ".####..", *["...##.."] * 6, ".######", *["......."] * 2]


def test_distances_are_those_of_equation_7():
    units = np.random.default_rng(0).normal(size=(84, 3)).astype(np.float32)
    expected = [
        [((units[:, image] - code.ravel()) ** 2).sum() for image in range(3)]
        for code in codes.BITMAPS[:7]
    ]
    found = codes.squared_distances(jnp.asarray(units), 7)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_nearest_code_names_the_class():
    network = LeNet(head="rbf")
    units = jnp.asarray(codes.BITMAPS.reshape(10, 84)) * 0.9
    assert network.output_of(units).argmax(axis=1).tolist() == list(range(10))
    assert float(network.output_of(units)[0, 0]) == pytest.approx(-84 * 0.01, rel=1e-4)


def test_the_network_of_1998_has_60000_parameters_and_340908_connections():
    network = LeNet("scaled_tanh", "subsampling", "table1", "rbf")
    summary = model.summarize(network, (32, 32, 1))
    assert (summary.parameters, summary.connections) == (60_000, 340_908)
    output = summary.layers[-1]
    assert (output.name, output.parameters, output.connections) == ("output", 0, 840)


@pytest.mark.parametrize(
    ("units", "classes", "message"),
    [(80, 10, "bitmaps, not 80; end widths with 84"), (84, 47, "codes for 10 classes, not 47")],
)
def test_a_network_without_codes_is_refused(units, classes, message):
    with pytest.raises(ValueError, match=message):
        codes.check(units, classes)
