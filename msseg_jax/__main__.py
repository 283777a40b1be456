"""`python -m msseg_jax COMMAND` does what `msseg COMMAND` does."""

import sys

from msseg_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
