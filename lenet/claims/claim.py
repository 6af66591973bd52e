"""What a claim is: a statement, the studies that test it, and an examination of what they found.

Each claim has a file of its own, with one `Claim` in it. Its rules stand in its code: which
comparison, which interval, which margin; `rules` turns an interval into a verdict.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lenet import checkpoints, report
from lenet.templates.document import Block
from lenet.templates.run import Run

Studies = Mapping[str, ConfigDict]


@dataclasses.dataclass(frozen=True)
class Context:
    """What a claim is tested with.

    Attributes:
        folder: the workdir of all claims.
        base: every field of a config, before what a study changes.
        quick: whether to go through everything in a few minutes, on a subset of MNIST, without
            results that mean anything.
        color_dir: where CIFAR-10, or a part of it, lies; empty: where `data.load` finds it.
        results: the folder of the committed results, which some claims quote.
    """

    folder: Path
    base: ConfigDict
    quick: bool
    color_dir: str
    results: Path

    def study(self, **fields: Any) -> ConfigDict:
        """The base config with these fields; `variants` and `sweep` are dicts."""
        config = self.base.copy_and_resolve_references()
        if self.quick:
            config.dataset, config.data_dir = "mnist_5k", ""
        for field, value in fields.items():
            if isinstance(value, dict):
                config[field] = ConfigDict(value, sort_keys=False, convert_dict=True)
            else:
                config[field] = value
        return config

    def where(self, study: str) -> Path:
        """The workdir of a study."""
        return self.folder / "studies" / study

    def run(self, study: str) -> Run:
        """What a study that was run found."""
        return report.read(str(self.where(study)))

    def trained(self, study: str) -> list[checkpoints.Trained]:
        """The networks that it trained, but those that tuned something."""
        return checkpoints.load_all(str(self.where(study)))


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that a claim says, and what became of it.

    Attributes:
        statement: what was tested, as a sentence that can be true or false.
        rule: when it counts as supported and when as refuted, which was settled before the numbers.
        verdict: one of `rules.VERDICTS`.
        evidence: the numbers with their intervals, in a sentence or two.
        blocks: figures and tables.
    """

    statement: str
    rule: str
    verdict: str
    evidence: str
    blocks: tuple[Block, ...] = ()


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of the note and how it is tested.

    Attributes:
        name: of its config and its section.
        title: the statement in a few words.
        statement: it in English.
        original: the note's own words.
        method: how it is tested, in a few sentences.
        examine: from what the studies found to findings.
        studies: the configs to run, by name, in this order; each is checked before any is run.
        prepare: what must be there before they can run, such as data sets made from others.
    """

    name: str
    title: str
    statement: str
    original: str
    method: str
    examine: Callable[[Context], tuple[Finding, ...]]
    studies: Callable[[Context], Studies] = lambda context: {}
    prepare: Callable[[Context], None] = lambda context: None
