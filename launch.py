"""Flags to one call: `python launch.py --config=configs/msseg2.py --mode=train`.

Any field of the configuration can be overridden: --config.train.batch_size=8
"""

import os
import re
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", help_string="File with get_config().")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run. Default: runs/<name of the config file>."
)
MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "cross_validate", "describe"],
    "train: train the network, or continue a run that was stopped, then score the held-out "
    "patients. cross_validate: a run for each of config.data.folds, then the scores of all "
    "patients. describe: print the layer table.",
)  # fmt: skip
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where several processes train together. What "
    "Slurm (srun) and Open MPI 4 (mpirun) start needs none of these three flags; Open MPI 5, this."
)  # fmt: skip
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is no flag; flags are written --name=value")
    logging.set_verbosity(logging.WARNING)
    sys.stdout.reconfigure(line_buffering=True)  # a log that is piped into a file is read there
    # Imported here: --help and a wrong flag need none of it.
    from msseg_jax.system.errors import InputError
    from msseg_jax.system.interruption import EXIT_STATUS, INTERRUPTED, sigterm_as_ctrl_c
    from msseg_jax.system.machine import keep_freed_memory

    keep_freed_memory()
    try:
        if MODE.value == "describe":
            from msseg_jax.network.layer_table import describe

            print(describe(CONFIG.value))
        else:
            with sigterm_as_ctrl_c():
                train()
    except (InputError, OSError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr, flush=True)
        sys.stdout.flush()
        # Not by sys.exit: a compilation that was cut short may bring Python down as it ends.
        os._exit(EXIT_STATUS)  # documented in the README


def train() -> None:
    """Train alone, or as one of several processes."""
    from msseg_jax.models.configuration import what_must_agree
    from msseg_jax.system.interruption import EXIT_STATUS, Stopped
    from msseg_jax.training.experiment import cross_validate, run_experiment
    from msseg_jax.training.processes import agree_on, join_processes, leave

    config_name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = Path(WORKDIR.value or Path("runs") / config_name)
    work = cross_validate if MODE.value == "cross_validate" else run_experiment
    try:
        join_processes(COORDINATOR.value, PROCESS_ID.value, NUM_PROCESSES.value)
        agree_on(f"{MODE.value} {workdir} {what_must_agree(CONFIG.value)}")
        work(CONFIG.value, workdir)
    except Stopped as stopped:
        print(stopped)
        sys.exit(EXIT_STATUS)
    except BaseException as error:
        leave(error)
        raise


def parse_flags(arguments: list[str]) -> list[str]:
    """absl's own, but a file or field that does not exist ends in a message, not a traceback."""
    try:
        rest = app.parse_flags_with_usage(arguments)
        _ = CONFIG.value.seed  # a file that cannot be loaded is told of when it is used
    except (AttributeError, KeyError) as error:
        # ml_collections quotes the field, and Python its message, once more.
        reason = re.sub(r"\\n|\n", " ", str(error.args[0]))
        reason = re.sub(r"[\\\"']", "", reason).replace(" Did you mean", "; did you mean")
        sys.exit(f"an override, or --config's file, names a field that does not exist: {reason}")
    except OSError as error:
        sys.exit(f"--config cannot be loaded: {error}")
    return rest


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
