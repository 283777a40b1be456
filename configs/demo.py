"""The main job on a machine with nothing but Python: phantoms, a short training, predictions.

    python launch.py --config=configs/demo.py
"""

from ml_collections import ConfigDict

from configs import msseg2


def get_config() -> ConfigDict:
    config = msseg2.get_config()
    config.data.root = ""
    config.data.phantom_patients = 12
    config.data.validation_patients = 4
    config.data.patch_size = 32
    config.data.workers = 0
    config.train.batch_size = 4
    config.train.epochs = 1
    config.train.max_steps = 200
    config.train.log_every_steps = 10
    config.train.validate_every_steps = 200
    config.train.checkpoint_every_steps = 100
    return config
