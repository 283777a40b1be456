"""A digest of a trained network, which tells two networks apart."""

import hashlib
import json

import numpy as np
from flax.traverse_util import flatten_dict

from msseg_jax.models.model_file import TrainedNetwork


def network_digest(network: TrainedNetwork) -> str:
    """Return a SHA-256 of everything in a network that a probability map depends on.

    That is: the parameters and statistics, the layers, and the preprocessing. The place of the
    network and the options that are stored with it do not count. So a run and the model file that
    was exported from it have the same digest.
    """
    digest = hashlib.sha256()
    layers = network.config.model.model_dump()
    if layers["target_set"] == "raters":  # it was not a field when the first digests were stored
        del layers["target_set"]
    settings = [layers, network.preprocessing.model_dump()]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name, array in sorted(flatten_dict(network.variables, sep="/").items()):
        values = np.ascontiguousarray(array)
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
