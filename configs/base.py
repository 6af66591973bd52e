"""Every field, its default and its meaning; the other configs say only how they differ.

python main.py --config=configs/base.py --config.activation=tanh
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The fields shared by every config."""
    config = ConfigDict()

    # Data.
    config.dataset = "mnist"  # mnist, fashion_mnist, kmnist, cifar10 or mnist_5k
    config.data_dir = ""  # a folder of IDX files, an .npz or a TFDS folder; empty: fetched
    config.allow_subset = False  # fall back on 5,000 images of MNIST when it cannot be had
    config.train_examples = 0  # use the first so many training images; 0: all of them
    config.holdout = 0  # test on the last so many training images, and never see the test images
    config.validation_examples = 0  # hold out the last so many training images
    config.normalization = "unit"  # unit (0 to 1), lecun (-0.1 to 1.175), standard (mean 0, std 1)
    config.augmentation = "none"  # distortions (fresh each time), distortions_1998 (a fixed set)
    config.translation = 2.0  # of distortions: at most so many pixels along each axis
    config.scaling = 0.15  # at most so large a logarithm of the factor
    config.squeezing = 0.15  # likewise, one axis by the factor and the other by its inverse
    config.shear = 0.3  # at most so many pixels sideways for each pixel up or down

    # Network.
    config.activation = "relu"  # relu, tanh, scaled_tanh, sigmoid, identity, gelu, silu, ...
    config.pooling = "max"  # max, average, subsampling (trainable), stride (a convolution), none
    config.connections = "full"  # s2 to c3: full, or table1 as in the paper
    config.head = "dense"  # dense (c5 f6 output), gap (global average, output), rbf (c5 f6 codes)
    config.widths = (6, 16, 120, 84)  # maps of c1 and c3, units of c5 and f6
    config.extra_layers = 0  # fully connected layers more after f6, each as wide as it
    config.dropout = 0.0  # in training, the share of units of c5, f6 and on that are set to zero
    config.initialization = "lecun_normal"  # he_normal, glorot_uniform, torch, uniform_1998, ...
    config.coefficients = "mean"  # of pooling=subsampling, at first: mean, or drawn like weights
    config.convolution = (
        "auto"  # how it is computed: polyphase, patches, the faster of the two; lax
    )
    config.precision = "float32"  # of matrix products: float32, tensorfloat32, bfloat16
    config.init_from = ""  # a workdir whose trained parameters to begin with, seed by seed
    config.init_variant = ""  # of it: the variant; empty: the one of our name, or the only one
    config.init_layers = ()  # of it: the layers, as ("c1", "c3"); empty: all
    config.frozen = ()  # layers that keep the parameters they begin with

    # Training.
    config.loss = "cross_entropy"  # or, with head=rbf: rbf_mse (equation 8), rbf_map (9)
    config.rbf_j = 1.0  # for loss=rbf_map: the distance that counts as rubbish
    config.rbf_scale = 1.0  # of distances in a loss: 1/84 makes them means over the units of f6
    config.optimizer = "adam"  # sgd, momentum, adam, adamw, sdlm (the paper's)
    config.learning_rate = 2e-3
    config.momentum = 0.9  # for optimizer=momentum
    config.weight_decay = 0.0  # an L2 penalty; decoupled for adamw
    config.damping = 0.02  # for optimizer=sdlm: mu, added to the curvature
    config.curvature_examples = 500  # for optimizer=sdlm: to estimate it on, before each epoch
    config.curvature_interval = 0  # and anew after so many steps of it; 0: not before the next
    config.curvature_memory = 0.0  # what an estimate keeps of the one before; 0: nothing
    config.schedule = "cosine"  # constant, linear, cosine, warmup_cosine, passes_1998
    config.order = "fresh"  # of the examples: fresh for each epoch, or constant
    config.batch_size = 128
    config.num_epochs = 10
    config.seed = 0  # initial parameters and order of the examples; 0 to 2**31 - 1
    config.members_at_once = 0  # models a device trains together; 0: one on a CPU, all on a GPU
    config.checkpoints_to_keep = 3

    # Several trials, in the order they are declared in. From the command line:
    # --config.sweep.seed='(0,1,2)'.
    config.sweep = ConfigDict(sort_keys=False)  # field -> values: their product is run
    config.variants = ConfigDict(sort_keys=False)  # name -> {field: value}: crossed with the sweep
    config.tune = ()  # fields to choose per variant, on the validation images, from the values of
    # the sweep or from a tuple of the variant's own: {"learning_rate": (1e-4, 3e-4)}
    config.tune_seeds = (1000, 1001)  # the seeds to choose them with
    config.path = ()  # variants in order: each is compared with the one before it
    config.references = ConfigDict(sort_keys=False)  # variant -> variants, each compared with it
    return config
