"""Run the whole chain without any data: make phantoms, train for a short time, and predict.

    python launch.py --config=configs/demo.py

Hardware: a CPU with 2 cores. Time: 71 s, on 2 cores of an AMD EPYC. Score: 8 of 9 held-out new
lesions found, no false positive in 4 patients, mean Dice 0.721. Results differ between CPUs,
because rounding differs and the training is short; by how much: not measured.

To be quick, everything is coarse: voxels of 1.6 mm, patches of 24^3. The scores show that the chain
works from end to end. They do not tell how well it works in real patients.
"""

from ml_collections import ConfigDict

from msseg_jax.configuration.files import shipped


def get_config() -> ConfigDict:
    config = shipped("msseg2")
    config.model.initial_probability = 0.005
    config.model.dropout_rate = 0.0  # the training is too short to overfit
    config.model.norm_momentum = 0.95  # small batches: average their statistics over more steps
    config.data.root = ""  # the phantoms
    config.data.phantom_patients = 16
    config.data.phantom_spacing_mm = 1.6
    config.data.validation_patients = 4
    config.data.spacing_mm = 1.6
    config.data.patch_size = 24
    config.data.patches_per_patient = 20
    config.train.batch_size = 4
    config.train.epochs = 7
    config.train.learning_rate = 0.01
    config.train.learning_rate_decay = 0.7
    config.train.log_every_steps = 20
    config.train.validate_every_steps = 420  # once, at the end
    config.train.checkpoint_every_steps = 60
    config.predict.overlap = 4
    return config
