"""`msseg train` and launch.py: train a network, or cross-validate."""

import argparse
import os
import sys
from pathlib import Path

from msseg_jax.configuration.comparison import what_must_agree
from msseg_jax.configuration.sections import Configuration
from msseg_jax.system.interruption import EXIT_STATUS, INTERRUPTED, Stopped, sigterm_as_ctrl_c
from msseg_jax.system.paths import check_outside
from msseg_jax.training.cross_validation import cross_validate
from msseg_jax.training.experiment import run_experiment
from msseg_jax.training.gpu_forms import explaining_lack_of_memory
from msseg_jax.training.joining import join_processes
from msseg_jax.training.processes import agree_on, is_main, leave


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0, or 75 if a signal stopped the training and it can be resumed."""
    workdir = Path(flags.workdir or Path("runs") / flags.config_file.stem)
    if not flags.configuration.data.phantom_patients:  # phantoms lie in --workdir
        root = Path(flags.configuration.data.root)
        check_outside(workdir, root, "--workdir lies in config.data.root, among the patients")
    try:
        with sigterm_as_ctrl_c():
            _train(flags, flags.configuration, workdir)
    except Stopped as stopped:
        print(stopped)
        return EXIT_STATUS
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr, flush=True)
        sys.stdout.flush()
        # Not sys.exit: Python may crash while it exits if a compilation was interrupted.
        os._exit(EXIT_STATUS)
    return 0


def _train(flags: argparse.Namespace, config: Configuration, workdir: Path) -> None:
    """Train in this process only, or together with other processes."""
    work = cross_validate if flags.mode == "cross_validate" else run_experiment
    try:
        join_processes(flags.coordinator, flags.process_id, flags.num_processes)
        agree_on(f"{flags.mode} {workdir} {what_must_agree(config)}")
        if is_main():
            _say_if_not_used(flags)
        with explaining_lack_of_memory(config):
            work(config, workdir)
    except Stopped:
        raise
    except BaseException as error:
        leave(error)
        raise


def _say_if_not_used(flags: argparse.Namespace) -> None:
    """Say that the folder of patients in a flag is not used, because phantoms are."""
    data = flags.configuration.data
    given = {override.partition("=")[0].lstrip("-") for override in flags.overrides}
    if data.phantom_patients and "config.data.root" in given:
        print(
            f"config.data.root={data.root} is not used, because config.data.phantom_patients is "
            f"{data.phantom_patients}. Set the latter to 0 to train on your own data."
        )
