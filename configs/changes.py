"""The training of the released weights: five maps, with synthetic pairs of public FLAIRs.

    python launch.py --config=configs/changes.py --config.data.root=ROOT

ROOT is a folder of pairs that `msseg synthetic` makes. `python -m benchmarks.weights` makes such
pairs and runs the trainings. MODEL_CARD.md has the time and the scores.

The network is the paper's, with as many maps, but its maps show other things: new lesions,
enlarging ones, vanished or shrunk ones, and all lesions at each visit. Each map has its own Dice
ratio, because all lesions together have many more voxels than the new ones. The other differences
from `msseg2` make the training short: voxels of 1 mm, and 240 patches of 40 mm from each pair in
place of the paper's 34,880 patches of 45 mm. The operating point (threshold, smallest lesion,
smallest peak) is set later, when the network is exported.
"""

from ml_collections import ConfigDict

from msseg_jax.configuration.files import shipped


def get_config() -> ConfigDict:
    config = shipped("msseg2")
    config.model.targets = 5
    config.model.target_set = "changes"
    config.model.initial_probability = 0.005
    config.model.dropout_rate = 0.0  # the training is short, and no patch is repeated
    config.model.norm_momentum = 0.98  # small batches: average their statistics over more steps
    config.data.spacing_mm = 1.0
    config.data.patch_size = 40
    config.data.lesion_patch_probability = 0.7
    config.data.patches_per_patient = 24
    config.train.loss = "each_target"
    config.train.batch_size = 8
    config.train.epochs = 10
    config.train.learning_rate = 0.004
    config.train.learning_rate_decay = 0.74
    config.train.log_every_steps = 20
    config.train.checkpoint_every_steps = 300

    # The synthetic pairs already differ in many ways. Add only augmentation that takes little time.
    config.augmentation.enabled = True
    config.augmentation.affine_probability = 0.2
    config.augmentation.elastic_probability = 0.0
    config.augmentation.misregistration_probability = 0.2
    config.augmentation.misregistration_voxels = 0.7
    config.augmentation.gamma_probability = 0.2
    config.augmentation.gain_probability = 0.2
    config.augmentation.gain = 0.05
    config.augmentation.bias_probability = 0.2
    config.augmentation.bias = 0.2
    config.augmentation.blur_probability = 0.1
    config.augmentation.slice_probability = 0.1
    config.augmentation.noise_probability = 0.2
    return config
