"""Regions of lesions, on the average brain itself."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nilearn import datasets

from msseg_jax.prepare.atlas import ADULT
from msseg_jax.prepare.regions import Regions, is_infratentorial
from msseg_jax.volumes.pair import Pair
from msseg_jax.volumes.volume import Volume

TURN = np.radians(7)


@pytest.fixture(scope="module")
def brain():
    """Return a pair of simulated FLAIRs of the average brain, turned, and its transform."""
    grey, white, mask = (
        image.get_fdata(dtype=np.float32)
        for image in (
            datasets.load_mni152_gm_template(resolution=2),
            datasets.load_mni152_wm_template(resolution=2),
            datasets.load_mni152_brain_mask(resolution=2),
        )
    )
    image = grey + 0.85 * white
    affine = datasets.load_mni152_gm_template(resolution=2).affine
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]]
    turn[:3, 3] = (5, -12, 30)
    scanner = turn @ affine
    visit = Volume(Path("visit.nii.gz"), image, scanner, nib.Nifti1Header())
    pair = Pair(visit, visit, mask > 0.5, np.zeros((0, *image.shape), np.uint8), np.zeros(0, bool))
    # From points of the pair to points of the atlas, which is smaller; both LPS.
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    matrix = flip @ (np.diag([ADULT] * 3 + [1.0]) @ np.linalg.inv(turn)) @ flip
    to_atlas = sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
    return Regions(pair, to_atlas), pair, affine


def lesion_at(mni_mm, affine):
    """Return the voxels of a small lesion around a point in MNI space."""
    centre = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), mni_mm)).astype(int)
    return centre + np.argwhere(np.ones((3, 3, 3))) - 1


@pytest.mark.parametrize(
    ("mni_mm", "region"),
    [
        ((-18, -62, -38), "infratentorial"),  # cerebellum
        ((0, -26, -32), "infratentorial"),  # pons
        ((24, -36, 20), "periventricular"),  # at the atrium
        ((-14, 24, 10), "periventricular"),  # at the frontal horn
        ((-24, -10, 34), "deep white matter"),
        ((40, -6, 58), "cortical or juxtacortical"),
        ((30, -78, -6), "cortical or juxtacortical"),  # occipital lobe, above the tentorium
    ],
)
def test_the_region_of_a_lesion(brain, mni_mm, region):
    regions, _, affine = brain
    assert regions.of(lesion_at(mni_mm, affine)).name == region


def test_only_lesions_near_the_brain_stem_get_a_caution(brain):
    regions, _, affine = brain
    assert regions.of(lesion_at((14, -20, -36), affine)).caution
    assert not regions.of(lesion_at((-24, -10, 34), affine)).caution


def test_without_ventricles_no_lesion_is_periventricular(brain):
    _, pair, affine = brain
    bright = np.where(pair.brain, 1.0, 0.0).astype(np.float32)
    visit = Volume(Path("visit.nii.gz"), bright, pair.time01.affine, nib.Nifti1Header())
    other = Pair(visit, visit, pair.brain, pair.targets, pair.known)
    regions = Regions(other, sitk.Transform(3, sitk.sitkIdentity))
    assert not regions.ventricles.any()
    assert regions.of(lesion_at((24, -36, 20), affine)).name != "periventricular"


def test_the_temporal_and_occipital_lobes_lie_above_the_tentorium():
    above = [(45, -10, -30), (-40, -45, -12), (20, -90, -5), (10, -70, 0), (0, -15, 5)]
    below = [(0, -60, -30), (-35, -60, -35), (0, -20, -25), (5, -35, -45)]
    assert not is_infratentorial(np.array(above)).any()
    assert is_infratentorial(np.array(below)).all()
