"""The paper's training on augmented patches: `msseg2` with flips, deformations, misregistration
of the visits, and the ways in which scanners differ.

    python launch.py --config=configs/msseg2_augmented.py --config.data.root=/path/to/MSSEG2

Hardware: as `msseg2`; what augmentation takes of the processors is in docs/benchmarks.md. Time and
scores: not measured (the challenge's data are needed). All limits are in `msseg2`.
"""

from ml_collections import ConfigDict

from msseg_jax.configuration.files import shipped


def get_config() -> ConfigDict:
    config = shipped("msseg2")
    config.augmentation.enabled = True
    return config
