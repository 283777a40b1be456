"""The paper's training (`msseg2`) with augmented patches.

    python launch.py --config=configs/msseg2_augmented.py --config.data.root=/path/to/MSSEG2

The augmentation flips and deforms patches, misregisters the visits, and changes intensities as
different scanners do. Its limits are the defaults of the fields in `config.augmentation`.

Hardware: as for `msseg2`. docs/explanation/benchmarks.md tells how much CPU time augmentation
takes. The time and the scores were not measured, because they need the challenge's data.
"""

from ml_collections import ConfigDict

from msseg_jax.configuration.files import shipped


def get_config() -> ConfigDict:
    config = shipped("msseg2")
    config.augmentation.enabled = True
    return config
