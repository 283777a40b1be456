"""The released weights, trained on with a few labelled pairs of one's own: `open_ms`, for a while
and in small steps.

    python launch.py --config=configs/finetune.py --config.data.root=ROOT

Time and scores with phantoms are in the README; with real pairs: not measured. Ours throughout: the
paper trains from random weights.
"""

from ml_collections import ConfigDict

from msseg_jax.configuration.files import shipped


def get_config() -> ConfigDict:
    config = shipped("open_ms")
    config.init = "weights"
    config.data.root = "data/mine"
    config.data.phantom_patients = 0
    config.data.validation_patients = 0  # of a few pairs none can be spared: see cross-validation
    config.data.patches_per_patient = 100
    config.predict.min_lesion_mm3 = 30.0  # as the released weights
    config.train.batch_size = 8
    config.train.epochs = 5
    config.train.max_steps = 0
    config.train.learning_rate = 0.0004  # a tenth of the paper's
    config.train.learning_rate_decay = 0.7
    config.train.validate_every_steps = 50
    config.train.checkpoint_every_steps = 50
    return config
