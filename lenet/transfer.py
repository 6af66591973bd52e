"""Beginning with the parameters of a trained network: `init_from` and the fields beside it.

A trial begins with the trained trial of the same seed. A seed that was not trained, as those that
tune something, takes the trained seeds in turn: of n of them, in order, number `seed` modulo n.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lenet import checkpoints
from lenet.checkpoints import Trained
from lenet.sweep import Population, Trial

Params = dict[str, Any]


def begin(trials: Population, fresh: Sequence[Params]) -> list[Params]:
    """The parameters each trial begins with: those that `init_from` names, the others as they are.

    Args:
        trials: the trials.
        fresh: the initial parameters of each, or their shapes.

    Raises:
        ValueError: if a workdir holds no such variant, or a layer's parameters have another shape.
        CheckpointError: if it holds nothing trained.
    """
    known: dict[str, dict[str, dict[int, Trained]]] = {}
    begun = []
    for trial, params in zip(trials, fresh, strict=True):
        source = trial.fields["init_from"]
        if not source:
            begun.append(dict(params))
            continue
        if source not in known:
            known[source] = _by_seed(checkpoints.load_all(source))
        trained = _chosen(trial, known[source])
        begun.append(_replaced(trial, params, trained))
    return begun


def _by_seed(trained: Sequence[Trained]) -> dict[str, dict[int, Trained]]:
    found: dict[str, dict[int, Trained]] = {}
    for each in trained:
        found.setdefault(each.variant, {})[int(each.config.seed)] = each
    return found


def _chosen(trial: Trial, trained: dict[str, dict[int, Trained]]) -> Trained:
    wanted = trial.fields["init_variant"] or trial.variant
    if not trial.fields["init_variant"] and len(trained) == 1:
        (wanted,) = trained
    if wanted not in trained:
        raise ValueError(
            f"init_from={trial.fields['init_from']!r} has no variant {wanted!r}; set init_variant "
            f"to one of: {', '.join(trained)}"
        )
    seeds = trained[wanted]
    return seeds.get(trial.seed) or seeds[sorted(seeds)[trial.seed % len(seeds)]]


def _replaced(trial: Trial, fresh: Params, trained: Trained) -> Params:
    wanted = trial.fields["init_layers"] or tuple(fresh)
    replaced = dict(fresh)
    for layer in wanted:
        if layer not in fresh:  # Pooling without parameters.
            continue
        ours, theirs = _shapes(fresh[layer]), _shapes(trained.params.get(layer, {}))
        if ours != theirs:
            raise ValueError(
                f"init_from={trial.fields['init_from']!r}: {layer} of {trial.variant} is {ours}, "
                f"but that of {trained.trial} is {theirs or 'not there'}; name the layers to begin "
                "with in init_layers, or give both runs the same network"
            )
        replaced[layer] = {name: np.asarray(leaf) for name, leaf in trained.params[layer].items()}
    return replaced


def _shapes(leaves: Params) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in leaves.items()}
