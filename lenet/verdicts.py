"""The note's statements put to the test: studies are trained, examined, and written up.

    python main.py --config=configs/claims.py

A claims config has four fields: `claims`, the names of those to test; `quick`; `color_dir`; and
`base`, every field that a study starts from. The workdir holds one report of all of them, and each
study under `studies/`, a run like any other. Running again resumes.
"""

import functools
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lenet import data, experiment, processes, sweep, workdir
from lenet.claims import CLAIMS, rules
from lenet.claims.claim import Claim, Context, Finding
from lenet.files import write_atomically
from lenet.registry import lookup
from lenet.templates import document
from lenet.templates.document import Block, Bullets, Code, Notice, Section, Text
from lenet.templates.run import duration

log = logging.getLogger(__name__)

FIELDS = ("claims", "quick", "color_dir", "base")
# Studies have more models than there are cores.
MOST_MEMBERS = 1000
RESULTS = Path(__file__).parent.parent / "results"

Findings = Mapping[str, tuple[Finding, ...]]


def run(
    config: ConfigDict,
    name: str,
    workdir_path: str,
    *,
    overwrite: bool = False,
    command: str = "",
    began: float | None = None,
) -> dict[str, Any]:
    """Tests the claims of a config and writes the workdir, down to the report.

    The report is written anew after each claim, so that what is done can be read.

    Args:
        config: `claims`, `quick`, `color_dir` and `base`.
        name: unused; `experiment.run` takes it.
        workdir_path: the folder for the results, made if need be.
        overwrite: start over, deleting what the workdir holds.
        command: the command line, for the report.
        began: `time.time()` at the start of the process, for the times shown.

    Returns:
        The summary, as written to `summary.json`.

    Raises:
        ValueError: if a field of the config is not valid, before anything is trained.
        WorkdirError: if the workdir holds another config's run, or something else.
        OSError: if data cannot be had, or the disk not be written.
        StoppedError: after SIGINT or SIGTERM, once the state is saved.
    """
    began = time.time() if began is None else began
    claims = check(config)
    folder = Path(workdir_path)
    experiment.use_cores_as_devices(MOST_MEMBERS)
    context = Context(folder, config.base, bool(config.quick), config.color_dir, RESULTS)
    for claim in claims:
        for study, wanted in claim.studies(context).items():
            sweep.plan(wanted, study)
            if not wanted.data_dir:  # What is made of others comes later.
                data.load(wanted.dataset)
    found: dict[str, tuple[Finding, ...]] = {}
    with workdir.claimed(folder, config, overwrite) as begin:
        processes.from_primary(begin)
        for index, claim in enumerate(claims):
            log.info("claim %d of %d: %s", index + 1, len(claims), claim.title)
            processes.from_primary(functools.partial(claim.prepare, context))
            for study in claim.studies(context):
                log.info("study %s", study)
                # Asked again, as a study may take what those before it found.
                wanted = claim.studies(context)[study]
                experiment.run(wanted, study, str(context.where(study)), draw=False)
            found[claim.name] = claim.examine(context)
            for finding in found[claim.name]:
                log.info("%s: %s", finding.verdict, finding.statement)
            summary = _summary(claims, found, command, time.time() - began)
            processes.from_primary(functools.partial(_write, context, claims, found, summary))
    log.info("report: %s", folder / "report.html")
    return summary


def check(config: ConfigDict) -> tuple[Claim, ...]:
    """The claims that a config names, every field of it checked.

    Raises:
        ValueError: if a field or a value is not valid, naming it and what is.
    """
    for field in config:
        if field not in FIELDS:
            raise ValueError(
                f"{field!r} is not a field of a claims config; the fields are: {', '.join(FIELDS)}"
            )
    names = config.claims
    if isinstance(names, str) or not isinstance(names, tuple | list) or not names:
        raise ValueError(f"claims={names!r} must be a list of: {', '.join(CLAIMS)}")
    if len(set(names)) < len(names):
        raise ValueError(f"claims={names!r} names a claim twice")
    if not isinstance(config.quick, bool):
        raise ValueError(f"quick={config.quick!r} must be True or False")
    if not isinstance(config.color_dir, str):
        raise ValueError(f"color_dir={config.color_dir!r} must be a path, or empty")
    return tuple(lookup(CLAIMS, claim, "claims") for claim in names)


def _summary(
    claims: Sequence[Claim], found: Findings, command: str, seconds: float
) -> dict[str, Any]:
    return {
        "claims": [
            {
                "name": claim.name,
                "statement": claim.statement,
                "original": claim.original,
                "findings": [
                    {
                        "statement": finding.statement,
                        "rule": finding.rule,
                        "verdict": finding.verdict,
                        "evidence": finding.evidence,
                    }
                    for finding in found[claim.name]
                ],
            }
            for claim in claims
            if claim.name in found
        ],
        "command": command,
        "timing": {"total_seconds": seconds},
    }


def _write(
    context: Context, claims: Sequence[Claim], found: Findings, summary: dict[str, Any]
) -> None:
    drawn = sections(context, claims, found, summary)
    title = headline(found)
    texts = {
        **{f"figures/{plot.name}.svg": plot.svg for plot in document.plots(drawn)},
        "report.md": document.to_markdown(title, drawn),
        "report.html": document.to_html(title, drawn),
        "summary.json": json.dumps(summary, indent=2, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        content = text.encode()
        write_atomically(context.folder / name, lambda file, content=content: file.write(content))


def headline(found: Findings) -> str:
    """How many findings support what the note says, and how many do not."""
    verdicts = [finding.verdict for findings in found.values() for finding in findings]
    counts = [f"{verdicts.count(each)} {each}" for each in rules.VERDICTS if each in verdicts]
    return f"What the note says of LeNet: {', '.join(counts)}"


def sections(
    context: Context, claims: Sequence[Claim], found: Findings, summary: Mapping[str, Any]
) -> tuple[Section, ...]:
    """The report: all verdicts, then each claim, then how to make it again."""
    done = [claim for claim in claims if claim.name in found]
    overview: list[Block] = []
    if context.quick:
        overview.append(
            Notice(
                "**A quick pass** (`quick`): a subset of MNIST and hardly any training, to see "
                "that everything runs. Its verdicts mean nothing."
            )
        )
    if len(done) < len(claims):
        overview.append(
            Notice(f"**Not finished**: {len(done)} of {len(claims)} claims have been tested.")
        )
    overview += [
        *(block for claim in done for block in _verdicts(claim, found[claim.name])),
        Text(
            "A verdict follows from a rule that stands in the code beside the claim and was there "
            "before the numbers: supported, if the whole 95 % interval is on the statement's side; "
            "refuted, if it is wholly on the other; undecided, if it is on both."
        ),
    ]
    command = summary["command"] or "python main.py --config=configs/claims.py"
    again = (
        Code(command, "sh"),
        Text(f"It took {duration(summary['timing']['total_seconds'])}, what was resumed left out."),
    )
    return (
        Section("Verdicts", tuple(overview)),
        *(Section(claim.title, _told(claim, found[claim.name])) for claim in done),
        Section("How to make this again", again),
    )


def _verdicts(claim: Claim, findings: Sequence[Finding]) -> tuple[Block, ...]:
    items = tuple(f"**{finding.verdict}**: {finding.statement}" for finding in findings)
    return (Text(f"**{claim.title}**"), Bullets(items))


def _told(claim: Claim, findings: Sequence[Finding]) -> tuple[Block, ...]:
    blocks: list[Block] = [
        Text(f"{claim.statement} In the note's own words: {claim.original}"),
        Text(f"**How it was tested.** {claim.method}"),
    ]
    for finding in findings:
        blocks += [
            Text(f"**{finding.verdict.capitalize()}: {finding.statement}** {finding.evidence}"),
            *finding.blocks,
            Text(f"Rule: {finding.rule}"),
        ]
    return tuple(blocks)
