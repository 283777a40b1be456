"""Fenneteau et al., "Siamese convolutional neural network for new multiple sclerosis lesion
segmentation", MSSEG-2 challenge at MICCAI 2021 (hal-03359032): the paper, every constant.

    python launch.py --config=configs/msseg2.py --config.data.root=/path/to/MSSEG2

Hardware: 4 GPUs in the paper. Time and scores with this code: not measured (the challenge's data
are needed).

The defaults of all fields are the paper's constants. `python launch.py --help` lists them with
their meaning, unit and range; they are defined in msseg_jax/configuration/sections.py.
"""

from ml_collections import ConfigDict

from msseg_jax.configuration.files import default


def get_config() -> ConfigDict:
    return default()
