"""The configuration of the released weights.

    python launch.py --config=configs/open_ms.py --config.data.root=ROOT

Hardware, time and scores: not measured.
"""

from ml_collections import ConfigDict

from configs import msseg2


def get_config() -> ConfigDict:
    config = msseg2.get_config()
    config.model.targets = 1  # a consensus only
    config.data.spacing_mm = 1.0
    config.data.patch_size = 48
    return config
