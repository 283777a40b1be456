"""A small version of `configs/msseg2.py` that trains in seconds."""

from ml_collections import ConfigDict

from msseg_jax.configuration.files import default


def get_config() -> ConfigDict:
    """Return the configuration, also for `--config=tests/support/tiny.py`."""
    config = default()
    config.model.widths = (3, 2)
    config.model.node_convolutions = 1
    config.model.refinement_width = 2
    config.model.refinement_convolutions = 1
    config.model.targets = 2
    config.data.spacing_mm = 1.0
    config.data.patch_size = 8
    config.data.patches_per_patient = 16
    config.data.validation_patients = 1
    config.train.batch_size = 4
    config.train.max_steps = 6
    config.train.log_every_steps = 2
    config.train.validate_every_steps = 3
    config.train.checkpoint_every_steps = 3
    config.predict.overlap = 2
    return config
