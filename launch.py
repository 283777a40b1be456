"""Train a network: `python launch.py --config=configs/msseg2.py [--config.field=value]`.

`--help` lists the modes and all fields of the configuration. `msseg train` does the same.
"""

import sys

from msseg_jax.cli.main import run

if __name__ == "__main__":
    sys.exit(run("train", sys.argv[1:], "launch.py"))
