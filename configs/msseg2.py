"""The training of the paper, with all its constants.

    python launch.py --config=configs/msseg2.py --config.data.root=/path/to/MSSEG2

The paper is: Fenneteau et al., "Siamese convolutional neural network for new multiple sclerosis
lesion segmentation", MSSEG-2 challenge at MICCAI 2021 (hal-03359032).

Hardware: 4 GPUs in the paper. The time and the scores with this code were not measured, because
they need the challenge's data.

The defaults of the fields are the paper's constants. `python launch.py --help` lists all fields
with their meaning, unit and range. msseg_jax/configuration/sections.py defines them.
"""

from ml_collections import ConfigDict

from msseg_jax.configuration.files import default


def get_config() -> ConfigDict:
    return default()
