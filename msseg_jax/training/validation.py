"""Segment and score the held-out patients, whole, while a network is trained."""

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
    """Scores the held-out patients on the isotropic grid, and draws the picture of one of them.

    The picture always shows the same patient: the first with new lesions, or else the first.
    Several processes share the patients, and the main one draws the picture.
    """

    def __init__(self, settings: TrainedSettings, patients: list[Entry]):
        self._settings = settings
        # A stable sort: the patient of the picture comes first, and so to the main process.
        shown_first = sorted(patients, key=lambda entry: not open_patient(*entry).has_lesions)
        self._patients = shown_first[jax.process_index() :: jax.process_count()]
        self._forward = compile_forward(SiameseMPUNet(settings.model))

    def __call__(
        self, variables: dict[str, Any], given_up: Callable[[], bool] = lambda: False
    ) -> tuple[dict[str, float], Snapshot | None] | None:
        """Return the scores of all patients together, and the picture; None if given up.

        The scores are {'dice', 'detected', 'missed', 'false'}. Dice is that of all voxels of all
        patients, so that patients without a new lesion count, too. It is NaN if there is neither a
        reference nor a predicted voxel.

        Args:
          variables: the network's parameters and statistics.
          given_up: asked before each patient whether to give up. It must not say so where several
            processes share the patients, because they wait for each other at the end.
        """
        predict, data = self._settings.predict, self._settings.data
        spacing_mm = (data.spacing_mm,) * 3
        # On one device: with variables on all of them, each device would compute every tile.
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
            probability = segment_volume(network, images, patient.brain, tiling)
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
