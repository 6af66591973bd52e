"""Trains LeNets and compares them.

python main.py --config=configs/relu_max.py [--workdir=runs/a] [--config.FIELD=VALUE ...]
"""

import time

BEGAN = time.time()

import logging  # noqa: E402
import os  # noqa: E402
import pathlib  # noqa: E402
import shlex  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from typing import Any  # noqa: E402

from absl import app, flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402
from ml_collections import ConfigDict, config_flags  # noqa: E402

from lenet import display, experiment, population, processes  # noqa: E402

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "What to train: a file in configs/.",
    lock_config=False,
    accept_new_attributes=True,
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the results go; runs/<the config file's name> if not given."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Start over: delete what the workdir holds.")
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes of a cluster, which tells where the others are."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "Of several processes: host:port of the first."
)
PROCESSES = flags.DEFINE_integer("num_processes", None, "Of several processes: how many.")
PROCESS = flags.DEFINE_integer("process_id", None, "Of several processes: which one, from 0.")


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; what is wrong with them is said in one line."""
    try:
        return app.parse_flags_with_usage(argv)
    except Exception as error:  # A config file is a program, which can fail in any way.
        sys.exit(
            f"error: --config: {' '.join(str(error.args[0] if error.args else error).split())}"
        )


def runner(config: ConfigDict) -> Callable[..., Any]:
    """What runs a config: that of one run, or that of the claims."""
    if "claims" not in config:
        return experiment.run
    from lenet import verdicts  # Not needed by any other run, and so not waited for.

    return verdicts.run


def main(argv: Sequence[str]) -> None:
    """Runs the config of the command line."""
    try:
        if len(argv) > 1:
            raise ValueError(f"{argv[1]!r} is not a flag; flags are written --name=value")
        if CONFIG.value is None:
            raise ValueError("--config must name a config file, such as configs/relu_max.py")
        path = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"]))
        if not path.is_file():
            there = ", ".join(str(known) for known in sorted(path.parent.glob("*.py")))
            raise ValueError(f"--config={path} is no file; there are: {there or 'none'}")
        if not isinstance(CONFIG.value, ConfigDict):
            raise ValueError(f"--config={path} is no config file: it defines no get_config()")
        name = path.stem
        absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax raises what it logs.
        display.show_logs()
        experiment.cache_compilations()
        given = (COORDINATOR.value, PROCESSES.value, PROCESS.value)
        if DISTRIBUTED.value or any(value is not None for value in given):
            processes.join(*given)
        runner(CONFIG.value)(
            CONFIG.value,
            name,
            WORKDIR.value or f"runs/{name}",
            overwrite=OVERWRITE.value,
            command=shlex.join(["python", *sys.argv]),
            began=BEGAN,
        )
    except processes.ElsewhereError as error:
        logging.getLogger("lenet").info(str(error))
        os._exit(1)
    except population.StoppedError as stop:
        logging.getLogger("lenet").info(str(stop))
        sys.exit(128 + stop.signum)
    except KeyboardInterrupt:
        sys.exit("stopped by SIGINT before any training")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        # At once: what met the same error in a library's thread would tell it again, at length.
        os._exit(1)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
