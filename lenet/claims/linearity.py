"""Without a non-linearity the classifier is linear: true with average pooling, not with max."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.linear_model import LogisticRegression

from lenet import data, figures
from lenet.checkpoints import Trained
from lenet.claims import rules
from lenet.claims.claim import Claim, Context, Finding, Studies
from lenet.claims.evidence import compare, errors_of, errors_plot, in_points, interval_of, mean_of
from lenet.templates.document import Block, Table, plot
from lenet.templates.run import percent

# Float32 has 24 bits: what differs by this share of the spread of the outputs is rounding.
ROUNDING = 1e-4
PAPER_LINEAR = 0.12

Images = Float[Array, "batch height width channel"]


def studies(context: Context) -> Studies:
    """Three networks, each with its own rate."""
    quick = context.quick
    return {
        "linearity": context.study(
            variants={
                "identity + average": {"activation": "identity", "pooling": "average"},
                "identity + max": {"activation": "identity", "pooling": "max"},
                "ReLU + average": {"activation": "relu", "pooling": "average"},
            },
            sweep={
                "learning_rate": (1e-3,) if quick else (2.5e-4, 1e-3, 4e-3, 8e-3),
                "seed": (0, 1) if quick else (0, 1, 2, 3, 4, 5),
            },
            tune=("learning_rate",),
            tune_seeds=(1000,),
            validation_examples=500 if quick else 10_000,
            num_epochs=1 if quick else 3,
        )
    }


def affine_map(
    trained: Trained,
) -> tuple[Float[Array, "classes height width channel"], Float[Array, "classes"]]:
    """The weights and biases of the affine map that agrees with a network about the zero image."""
    zero = jnp.zeros((1, *trained.dataset["image_shape"]))

    def outputs(images: Images) -> Float[Array, "classes"]:
        return _outputs(trained, images)[0]

    return jax.jacrev(outputs)(zero)[:, 0], outputs(zero)


def _outputs(trained: Trained, images: Images) -> Float[Array, "batch classes"]:
    return jnp.asarray(trained.model.apply({"params": trained.params}, images))


def departure(trained: Trained, images: Images) -> float:
    """How far a network's outputs are from `affine_map`'s, as a share of their own spread.

    The root of the mean square of the difference over the standard deviation of the outputs.
    """
    with jax.default_matmul_precision("highest"):
        weights, biases = affine_map(trained)
        linear = jnp.einsum("bhwc,khwc->bk", images, weights) + biases[None]
        outputs = _outputs(trained, images)
    return float(jnp.sqrt(jnp.mean((outputs - linear) ** 2)) / jnp.std(outputs))


def logistic_regression(dataset: data.Dataset) -> float:
    """The test error of multinomial logistic regression on the pixels, of nearly no penalty."""
    train, test = (
        images.reshape(len(images), -1) / np.float32(255)
        for images in (dataset.train_images, dataset.test_images)
    )
    model = LogisticRegression(C=1.0, max_iter=100, tol=1e-3)
    model.fit(train, dataset.train_labels)
    return float((model.predict(test) != dataset.test_labels).mean())


def examine(context: Context) -> tuple[Finding, ...]:
    """Departures from affine, and errors beside those of linear classifiers."""
    run = context.run("linearity")
    dataset = data.load(run.config["dataset"], run.config["data_dir"] or None)
    regression = logistic_regression(dataset)
    departures: dict[str, list[float]] = {}
    for trained in context.trained("linearity"):
        found = departure(trained, trained.shown(dataset.test_images[:1000]))
        departures.setdefault(trained.variant, []).append(found)
    average, largest = "identity + average", "identity + max"
    nonlinear = compare(run, "ReLU + average", average)
    by_max = compare(run, largest, average)
    errors = {variant: errors_of(run, variant) for variant in departures}
    means = {variant: mean_of(found) for variant, found in errors.items()}
    picture = errors_plot(
        "linearity-errors",
        run,
        title=f"A linear LeNet errs in {percent(means[average])}, "
        f"with max pooling alone in {percent(means[largest])}",
        references={"logistic regression": regression, "linear, paper of 1998": PAPER_LINEAR},
        caption="Test error of every seed, mean and 95 % interval. The lines are linear "
        "classifiers of the pixels.",
    )
    exact = Table(
        ("network", "departure from affine, least", "greatest"),
        tuple(
            (variant, f"{min(found):.1e}", f"{max(found):.1e}")
            for variant, found in departures.items()
        ),
    )
    worst = max(departures[average])
    return (
        Finding(
            "With the identity as activation and average pooling, the network is one affine map.",
            f"Supported if, for every seed, the outputs differ from those of the affine map "
            f"computed from the weights by less than {ROUNDING:g} of their spread, on 1,000 "
            "test images.",
            rules.exactly(worst < ROUNDING),
            f"The map is the Jacobian at the zero image; the greatest departure is {worst:.1e} of "
            f"the spread of the outputs, over {len(departures[average])} seeds.",
            (exact,),
        ),
        Finding(
            "Without a non-linear activation the classifier is linear, whatever else it has.",
            "Supported if identity with max pooling departs from affine by less than "
            f"{ROUNDING:g} as well, refuted if every seed departs by more.",
            rules.exactly(max(departures[largest]) < ROUNDING),
            f"Max pooling is a non-linearity of its own: it departs by "
            f"{min(departures[largest]):.2f} to {max(departures[largest]):.2f}. It lowers the "
            f"error by {in_points(by_max, sign=-1)} points against average pooling.",
            (picture,),
        ),
        Finding(
            "A linear model expresses too little: a non-linearity lowers the error.",
            "Supported if the 95 % interval of the paired difference, ReLU minus identity, both "
            "with average pooling, lies below 0.",
            rules.below(interval_of(nonlinear)),
            f"ReLU {percent(means['ReLU + average'])}, identity {percent(means[average])}: a "
            f"difference of {in_points(nonlinear)} points. Logistic regression on the same pixels "
            f"errs in {percent(regression)}, the linear classifier of the paper in 12 %.",
            _maps(context),
        ),
    )


def _maps(context: Context) -> tuple[Block, ...]:
    """The affine map of one seed, drawn: an image a class."""
    trained = next(each for each in context.trained("linearity") if "average" in each.variant)
    weights, _ = affine_map(trained)
    names = trained.dataset["class_names"]
    drawn = figures.signed_images(
        np.asarray(weights[..., 0]),
        [str(name) for name in names],
        title="All there is of a linear LeNet: one image a class",
    )
    return (
        plot(
            "linearity-map",
            drawn,
            "The weights of the affine map, an image a class",
            "A LeNet with identity and average pooling is these ten images and ten biases: an "
            "image's output for a class is its product with the class's image. Blue counts for the "
            "class, orange against it.",
        ),
    )


CLAIM = Claim(
    name="linearity",
    title="Without a non-linearity the classifier is linear",
    statement="Without an activation function a network is a linear classifier, and a linear "
    "model expresses too little.",
    original="「如果不使用非线性激活函数，则分类器永远是线性的……而线性模型的表达能力是不够的。」",
    method="LeNets with the identity as activation, with average and with max pooling, beside "
    "one with ReLU; the affine map that a network would be is computed from its weights, and its "
    "outputs compared. Their errors stand beside multinomial logistic regression on the same "
    "pixels (scikit-learn) and the 12 % that the paper of 1998 reports for a linear classifier.",
    examine=examine,
    studies=studies,
)
