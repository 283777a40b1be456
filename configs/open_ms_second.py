"""The second part of the training of the released weights: faint lesions are not labelled here.

    python launch.py --config=configs/open_ms_second.py --config.data.root=ROOT --config.init=RUN

RUN is the folder of a run of `open_ms`; the default is that run's default folder, runs/open_ms. In
its pairs even the faintest lesions were labelled (`--least_contrast=0`). This gives more lesions to
learn from, but the network then also marks small differences of the protocol. ROOT holds other
pairs, in which the faintest lesions are not labelled. MODEL_CARD.md has the commands, the time and
the scores.
"""

from ml_collections import ConfigDict

from msseg_jax.configuration.files import shipped


def get_config() -> ConfigDict:
    config = shipped("open_ms")
    config.init = "runs/open_ms"
    config.data.patches_per_patient = 10
    config.train.epochs = 5
    config.train.learning_rate = 0.001
    config.train.learning_rate_decay = 0.6
    return config
