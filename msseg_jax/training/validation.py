"""Validation during the training: segment and score the whole volumes of held-out patients."""

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from msseg_jax.configuration.sections import TrainedSettings
from msseg_jax.data.cache import Entry, open_patient
from msseg_jax.data.packing import unpack_images, unpack_target
from msseg_jax.evaluation.scores import compare_lesions, count_lesions
from msseg_jax.inference.forward import compile_forward, segment_volume
from msseg_jax.inference.tiles import Tiling
from msseg_jax.network.model import SiameseMPUNet
from msseg_jax.report.snapshot import Snapshot, draw_snapshot
from msseg_jax.training import processes


class Validation:
    """Scores the held-out patients on the isotropic grid, and draws a picture of one of them.

    The picture always shows the same patient: the first one with new lesions, or the first one if
    there are no new lesions. Several processes share the patients. The main process draws the
    picture.
    """

    def __init__(self, settings: TrainedSettings, patients: list[Entry]):
        self._settings = settings
        # The sort is stable. It puts the patient of the picture first, so the main process gets it.
        shown_first = sorted(patients, key=lambda entry: not open_patient(*entry).has_lesions)
        self._patients = shown_first[jax.process_index() :: jax.process_count()]
        self._forward = compile_forward(SiameseMPUNet(settings.model))

    def __call__(
        self, variables: dict[str, Any], given_up: Callable[[], bool] = lambda: False
    ) -> tuple[dict[str, float], Snapshot | None] | None:
        """Return the scores of all patients together, and the picture; None if given up.

        The scores are {'dice', 'detected', 'missed', 'false'}. Dice is computed over the voxels of
        all patients together, so that patients without a new lesion also count. It is NaN if there
        is neither a reference voxel nor a predicted one.

        Args:
          variables: parameters and running statistics of the network.
          given_up: called before each patient; returns whether to give up. It must return False if
            several processes share the patients, because they wait for each other at the end.
        """
        predict, data = self._settings.predict, self._settings.data
        spacing_mm = (data.spacing_mm,) * 3
        # Use one device: with the variables on all devices, each would compute every tile.
        variables = jax.device_put(variables, jax.local_devices()[0])
        network = partial(self._forward, variables)
        side = data.patch_size
        tiling = Tiling((side, side, side), predict.overlap, predict.batch_size)
        counts = Counter(overlap=0, total=0, detected=0, missed=0, false=0)
        snapshot = None
        for name, folder in self._patients:
            if given_up():
                return None
            patient = open_patient(name, folder)
            images = unpack_images(patient.images)
            (probability,) = segment_volume(network, images, patient.brain, tiling)
            prediction = probability > predict.threshold
            reference = unpack_target(patient.targets, 0) == 1
            counts["overlap"] += int((prediction & reference).sum())
            counts["total"] += int(prediction.sum()) + int(reference.sum())
            counts.update(count_lesions(compare_lesions(reference, prediction, spacing_mm)))
            if snapshot is None and processes.is_main():
                snapshot = draw_snapshot(
                    name, patient.affine, images, patient.brain, reference, prediction
                )
        sums = processes.sum_over_processes(counts)
        overlap, total = sums.pop("overlap"), sums.pop("total")
        return {"dice": 2 * overlap / total if total else math.nan, **sums}, snapshot
