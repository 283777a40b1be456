"""A training on five maps, with synthetic pairs of public FLAIRs.

    python launch.py --config=configs/changes.py --config.data.root=ROOT

ROOT is a folder of pairs that `msseg synthetic` makes. `python -m benchmarks.weights` makes such
pairs and runs the trainings. Time and scores: not measured.

The network is the paper's, with as many maps, but its maps show other things: new lesions,
enlarging ones, vanished or shrunk ones, and all lesions at each visit. Each map has its own Dice
ratio, because all lesions together have many more voxels than the new ones. The other differences
from `msseg2` make the training short: voxels of 1 mm, and 240 patches of 40 mm from each pair in
place of the paper's 34,880 patches of 45 mm.
"""

from ml_collections import ConfigDict

from msseg_jax.configuration.files import shipped


def get_config() -> ConfigDict:
    config = shipped("open_ms")
    config.model.targets = 5
    config.model.target_set = "changes"
    config.train.loss = "each_target"
    config.data.lesion_patch_probability = 0.7
    config.data.patches_per_patient = 24
    config.train.epochs = 10
    return config
