"""Fine-tune the released weights on a few labelled pairs of your own.

    python launch.py --config=configs/finetune.py --config.data.root=ROOT

It is the configuration `changes` with only the map of the new lesions, fewer steps and a lower
learning rate. The page docs/howto/fine_tune.md has the time and the scores with phantoms. They were
not measured with real pairs. None of the values are from the paper, which trains from random
weights.
"""

from ml_collections import ConfigDict

from msseg_jax.configuration.files import shipped


def get_config() -> ConfigDict:
    config = shipped("changes")
    config.init = "weights"
    config.model.targets = 1
    config.data.root = "data/mine"
    config.data.phantom_patients = 0
    config.data.validation_patients = 0  # few pairs: train on all, and cross-validate for scores
    config.data.patches_per_patient = 100
    # As in the released weights.
    config.predict.threshold = 0.5
    config.predict.min_lesion_mm3 = 15.0
    config.predict.min_peak = 0.9
    config.train.batch_size = 8
    config.train.epochs = 5
    config.train.max_steps = 0
    config.train.learning_rate = 0.0004  # a tenth of the paper's
    config.train.learning_rate_decay = 0.7
    config.train.validate_every_steps = 50
    config.train.checkpoint_every_steps = 50
    return config
