"""Train a network: `python launch.py --config=configs/msseg2.py [--config.field=value]`.

`--help` lists the modes and all fields of the configuration. `msseg train` does the same.
"""

import sys

if __name__ == "__main__":
    try:
        from msseg_jax.cli.main import run

        status = run("train", sys.argv[1:], "launch.py", owns_process=True)
    except ModuleNotFoundError as error:
        sys.exit(
            f"launch.py: the Python library {error.name} is missing. Run `make install` and then "
            "`. .venv/bin/activate`, or install the package with `pip install .`."
        )
    sys.exit(status)
