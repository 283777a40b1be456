"""`msseg export`: write trained networks into one model file, or print what such a file holds."""

import argparse

from msseg_jax.cli.ending import last_line
from msseg_jax.cli.flags.export import TEXTS
from msseg_jax.models.agreed_options import OF_THE_MEAN
from msseg_jax.models.export import export
from msseg_jax.models.model_description import describe
from msseg_jax.models.model_file import read_model_file
from msseg_jax.models.released import WEIGHTS, released
from msseg_jax.system.backend import start_backend
from msseg_jax.system.errors import InputError
from msseg_jax.system.words import count_of


def run(flags: argparse.Namespace) -> int:
    """Run the command; return 0."""
    start_backend()
    if flags.show is None:
        _write(flags)
    path = flags.show or flags.output
    file = read_model_file(released() if str(path) == WEIGHTS else path)
    print(describe(file))
    if flags.show is None:
        content = count_of(len(file.networks), "network")
        print(last_line("model file", path, content, flags.began_s))
    return 0


def _write(flags: argparse.Namespace) -> None:
    output = flags.output
    if output.exists() and not flags.overwrite:
        raise InputError(
            f"--output={output}: the file exists. Choose another name, or replace it with "
            "--overwrite."
        )
    given = {name: value for name, value in vars(flags).items() if value is not None}
    texts = {name: given[name] for name in TEXTS if name in given}
    predict = {name: given[name] for name in (*OF_THE_MEAN, "flips") if name in given}
    export(flags.model, output, texts, predict, flags.reliability)
