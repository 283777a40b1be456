"""New multiple-sclerosis lesions between two FLAIR visits: a Siamese U-Net++ in JAX."""

import sys

__version__ = "0.1.0"

# pip refuses other versions of Python. A checkout also runs without pip, so it refuses them too,
# in syntax that they understand.
if not (3, 11) <= sys.version_info < (3, 14):
    sys.exit("msseg_jax needs Python 3.11, 3.12 or 3.13; this is Python " + sys.version.split()[0])
